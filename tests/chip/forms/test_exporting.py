"""The one function that exports: it takes a form by name, as an object, or from a user's file."""

from pathlib import Path
from typing import Any

import pytest
from tests.chip.forms.own_form import ListingForm
from tests.chip.programs import small_program

from photomask.chip import Form, export, load_form
from photomask.chip.forms import FORMS, Manifest, MemoryForm
from photomask.errors import DataError, FormError, UsageError


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """A user's file with a form, a function that makes one, and something else."""
    file = tmp_path / "my_forms.py"
    file.write_text(
        "from tests.chip.forms.own_form import ListingForm\n"
        "form = ListingForm(comment='an object')\n"
        "def make():\n"
        "    return ListingForm(comment='made')\n"
        "number = 3\n"
    )
    return file


def contents(place: Path) -> dict[str, bytes]:
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


def test_memory_images_are_what_is_written_without_a_form(tmp_path: Path):
    program, codes = small_program()
    manifest = export(program, tmp_path / "usual", codes)
    assert isinstance(manifest, Manifest)
    assert export(program, tmp_path / "named", codes, form="memory") == manifest
    assert export(program, tmp_path / "object", codes, form=MemoryForm()) == manifest
    assert contents(tmp_path / "usual") == contents(tmp_path / "object")
    assert contents(tmp_path / "usual") == contents(tmp_path / "named")


def test_a_form_of_ones_own_is_written_and_tells_what_it_wrote(tmp_path: Path):
    program, codes = small_program()
    count: int = export(program, tmp_path / "list.json", codes, form=ListingForm(), samples=1)
    assert count == len(program.steps)
    assert (tmp_path / "list.json").read_text().count('"logits": [') == 1


@pytest.mark.parametrize(
    ("attribute", "comment"), [("form", "an object"), ("make", "made"), ("ListingForm", "")]
)
def test_a_form_is_named_by_file_and_attribute(own_file: Path, attribute: str, comment: str):
    form: Any = load_form(f"{own_file}:{attribute}")
    assert (form.name, form.comment) == ("listing", comment)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_is_named_by_its_name_or_is_given(form: Form[Any]):
    assert load_form(form.name) is form
    assert load_form(form) is form
    assert isinstance(form, Form)


@pytest.mark.parametrize(
    ("form", "error", "message"),
    [
        ("elf", UsageError, "no form 'elf': choose from memory"),
        ("none.py:form", UsageError, "no file 'none.py'"),
        ("FILE:nothing", UsageError, "no attribute 'nothing'"),
        ("FILE:number", FormError, "the form int breaks the law of members"),
        (ListingForm, FormError, "it is a class"),
        (None, FormError, "NoneType breaks the law of members"),
    ],
)
def test_what_is_no_form_is_refused(
    form: Any, error: type[Exception], message: str, own_file: Path, tmp_path: Path
):
    program, codes = small_program()
    form = form.replace("FILE", str(own_file)) if isinstance(form, str) else form
    with pytest.raises(error, match=message):
        export(program, tmp_path / "out", codes, form=form)
    assert not (tmp_path / "out").exists()


class WritingNothing(ListingForm):
    def export(self, *_: object) -> int:
        return 0


def test_a_form_that_wrote_nothing_is_refused_by_name(tmp_path: Path):
    program, codes = small_program()
    with pytest.raises(FormError, match="'listing' breaks the law of export"):
        export(program, tmp_path / "out", codes, form=WritingNothing())


def test_samples_of_no_inputs_are_a_usage_error(tmp_path: Path):
    program, _ = small_program()
    with pytest.raises(UsageError, match="asked for 2 samples without inputs"):
        export(program, tmp_path / "out", form=ListingForm(), samples=2)


def test_a_form_with_golden_vectors_needs_inputs_and_others_do_not(tmp_path: Path):
    program, _ = small_program()
    with pytest.raises(DataError, match="at least one sample"):
        export(program, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    export(program, tmp_path / "list.json", form=ListingForm())
    assert (tmp_path / "list.json").is_file()
