"""Every form writes every operator, or refuses it with a reason; the documentation says which."""

from typing import Any

import pytest
from tests.chip.forms.c.cases import program_of_cases
from tests.docs.pages import ROOT
from tests.docs.test_tables import rows_of

from photomask.chip import Form
from photomask.chip.forms import FORMS, support_matrix
from photomask.chip.operators import OPERATORS, Operator

BEGIN, END = "<!-- support -->\n", "<!-- /support -->\n"


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_writes_an_operator_or_says_why_not(form: Form[Any], operator: type[Operator]):
    reason = form.refusal(operator)
    assert reason is None or reason.strip()


REFUSED = [
    (form, operator)
    for form in FORMS
    for operator in OPERATORS
    if form.refusal(operator) is not None
]


@pytest.mark.parametrize(
    ("form", "operator"),
    REFUSED,
    ids=[f"{form.name}-{operator.__name__}" for form, operator in REFUSED],
)
def test_what_a_form_refuses_is_a_problem_of_every_program_with_it(
    form: Form[Any], operator: type[Operator]
):
    pytest.importorskip("onnx")
    program, _ = program_of_cases([operator.model_fields["kind"].default], range(3))
    reasons = {problem.step: problem.reason for problem in form.problems(program)}
    steps = [step.name for step in program.steps if isinstance(step.operator, operator)]
    assert len(steps) >= 3
    assert {name: reasons[name] for name in steps} == dict.fromkeys(steps, form.refusal(operator))


def test_names_and_places_of_forms_differ():
    assert len({form.name for form in FORMS}) == len({form.place for form in FORMS}) == len(FORMS)


def test_the_page_of_forms_shows_the_matrix_that_the_code_gives():
    page = (ROOT / "docs" / "reference" / "forms.md").read_text(encoding="utf-8")
    shown = page.partition(BEGIN)[2].partition(END)[0]
    assert shown == support_matrix(), "run python scripts/support_matrix.py"


def test_the_page_of_forms_names_them_all():
    rows = rows_of(ROOT / "docs" / "reference" / "forms.md", "The forms")
    assert [(row[0], row[1]) for row in rows] == [(f"`{f.name}`", f.title) for f in FORMS]


def test_the_matrix_has_a_cell_for_each_operator_and_form():
    rows = [line for line in support_matrix().splitlines() if line.startswith("| `")]
    assert len(rows) == len(OPERATORS)
    refused = sum(form.refusal(operator) is not None for form in FORMS for operator in OPERATORS)
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")[1:]]
    assert len(cells) == len(OPERATORS) * len(FORMS)
    assert sum(cell.startswith("no [") for cell in cells) == refused
