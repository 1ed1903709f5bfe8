"""Every form writes every operator, or refuses it with a reason; the documentation says which."""

from typing import Any

import pytest
from tests.test_docs import ROOT

from photomask.chip import Form
from photomask.chip.forms import FORMS, support_matrix
from photomask.chip.operators import OPERATORS, Operator

BEGIN, END = "<!-- support -->\n", "<!-- /support -->\n"


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_writes_an_operator_or_says_why_not(form: Form[Any], operator: type[Operator]):
    reason = form.refusal(operator)
    assert reason is None or reason.strip()


def test_names_and_places_of_forms_differ():
    assert len({form.name for form in FORMS}) == len({form.place for form in FORMS}) == len(FORMS)


def test_the_page_of_forms_shows_the_matrix_that_the_code_gives():
    page = (ROOT / "docs" / "forms.md").read_text(encoding="utf-8")
    shown = page.partition(BEGIN)[2].partition(END)[0]
    assert shown == support_matrix(), "run python scripts/support_matrix.py"


def test_the_matrix_has_a_cell_for_each_operator_and_form():
    rows = [line for line in support_matrix().splitlines() if line.startswith("| `")]
    assert len(rows) == len(OPERATORS)
    refused = sum(form.refusal(operator) is not None for form in FORMS for operator in OPERATORS)
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")[1:]]
    assert len(cells) == len(OPERATORS) * len(FORMS)
    assert sum(cell.startswith("no [") for cell in cells) == refused
