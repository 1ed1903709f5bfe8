"""`check_form` passes forms that keep the contract, and names the law that another one breaks."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.chip.forms.own_form import ListingForm
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip import check_form
from photomask.chip.formats import IntFormat
from photomask.chip.forms import FORMS, FormCheck, Problem, Sample
from photomask.chip.operators import Clamp, Interpolate, MaxPool, Operator, Permute, Reshape
from photomask.chip.program import IntegerProgram
from photomask.errors import DocumentError, FormError, MissingDependencyError

INT8 = IntFormat(bits=8, signed=True)
SLOW = ("rtl",)
"""Simulated, on one build of the design, by its own tests."""


def program_with_steps_that_a_listing_refuses() -> IntegerProgram:
    make = ProgramBuilder()
    x = make.input("x", (1, 2, 3))
    x = make.step("swap", Permute(order=(0, 2, 1)), [x], format=INT8)
    x = make.step("clip", Clamp(low=0, high=9), [x])
    x = make.step("swap_back", Permute(order=(0, 2, 1)), [x], format=INT8)
    return make.build(x)


@pytest.mark.parametrize("form", [ListingForm(), ListingForm(comment="mine")])
def test_a_form_that_keeps_the_contract_passes(form: Any):
    program, _ = small_program()
    assert check_form(form, program) == []


def pooled_program() -> IntegerProgram:
    """What even Deeploy expresses: windows and moves."""
    make = ProgramBuilder()
    windows = MaxPool(
        kernel=(2, 2), stride=(2, 2), padding=(0, 0), output_size=(2, 3), dilation=(1, 1)
    )
    x = make.input("x", (1, 3, 4, 6))
    x = make.step("pool", windows, [x], format=INT8)
    x = make.step("swap", Permute(order=(0, 2, 3, 1)), [x], format=INT8)
    return make.build(make.step("flatten", Reshape(shape=(18,)), [x], format=INT8))


def refused_program() -> IntegerProgram:
    """What QONNX and Deeploy have no form for."""
    make = ProgramBuilder()
    x = make.step("clip", Clamp(low=-8, high=7), [make.input("x", (1, 5))], format=INT8)
    table = np.array([-9, 2, 5, 11, 12])
    y = make.step(
        "line", Interpolate(first=-8, step_bits=2), [x], {"table": table}, {"table": INT8}
    )
    return make.build(make.requantize("rescale", y, INT8, shift=18))


@pytest.mark.parametrize(
    "program",
    [small_program()[0], pooled_program(), refused_program()],
    ids=["small", "pooled", "refused"],
)
@pytest.mark.parametrize(
    "form", [f for f in FORMS if f.name not in SLOW], ids=lambda form: form.name
)
def test_every_form_of_the_package_keeps_the_contract(form: Any, program: IntegerProgram):
    pytest.importorskip("onnxruntime")
    found = check_form(form, program)
    refused = [s for s in program.steps if form.refusal(type(s.operator)) is not None]
    assert {problem.step for problem in found} >= {step.name for step in refused}


def test_golden_samples_of_ones_own_are_taken():
    program, codes = small_program()
    assert check_form(ListingForm(), program, [{"x": codes[:1]}]) == []


def test_problems_are_returned_and_then_nothing_is_written():
    found = check_form(ListingForm(), program_with_steps_that_a_listing_refuses())
    assert [problem.step for problem in found] == ["swap", "swap_back"]


class WithoutTitle(ListingForm):
    title = ""


class WithTitleOfTwoLines(ListingForm):
    title = "one\ntwo"


class WithoutCheck(ListingForm):
    check = None  # type: ignore[assignment]


class WithCapitals(ListingForm):
    name = "Listing"


class CalledMemory(ListingForm):
    name = "memory"


class BesideTheManifest(ListingForm):
    place = "manifest.json"


class InsideTheGoldenVectors(ListingForm):
    place = "golden/listing.json"


class OutsideOfTheExport(ListingForm):
    place = "../listing.json"


class WithoutReason(ListingForm):
    def refusal(self, operator: type[Operator]) -> str | None:
        return "" if operator is Permute else super().refusal(operator)


class SilentAboutAnOperator(ListingForm):
    def refusal(self, operator: type[Operator]) -> str | None:
        if operator is Permute:
            raise FormError("the form listing neither writes nor refuses Permute")
        return super().refusal(operator)


class RefusingWhatIsNoProblem(ListingForm):
    def refusal(self, operator: type[Operator]) -> str | None:
        return "no windows" if operator is MaxPool else super().refusal(operator)


class WithProblemsOfOtherSteps(ListingForm):
    def problems(self, program: IntegerProgram) -> list[Problem]:
        return [Problem("elsewhere", "add", "model.py:1", "no addition")]


class WithProblemsAsText(ListingForm):
    def problems(self, program: IntegerProgram) -> list[Problem]:
        return ["step 'pool' is odd"]  # type: ignore[list-item]


class WritingNothing(ListingForm):
    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> int:
        return 0


class WritingBeside(ListingForm):
    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> int:
        place.with_suffix(".log").write_text("done")
        return super().export(program, place, samples)


class WritingTheTime(ListingForm):
    ticks = itertools.count()

    def text(self, program: IntegerProgram, lines: list[str], samples: Sequence[Sample]) -> str:
        return f"{next(self.ticks)}\n" + super().text(program, lines, samples)


class Appending(ListingForm):
    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> int:
        before = place.read_bytes() if place.exists() else b""
        count = super().export(program, place, samples)
        place.write_bytes(before + place.read_bytes())
        return count


class ChangingTheProgram(ListingForm):
    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> int:
        count = super().export(program, place, samples)
        next(iter(program.tensors.values())).flat[0] ^= 1
        return count


class ChangingASample(ListingForm):
    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> int:
        samples[0]["x"][...] = 0
        return super().export(program, place, samples)


class FailingItsOwnCheck(ListingForm):
    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        return FormCheck(10, 1, ("step 'pool' differs",))


class ComparingNothing(ListingForm):
    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        super().check(program, place, samples)
        return FormCheck(0, 0)


class CheckingNothing(ListingForm):
    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        return FormCheck(10, 0)


class ReadingWithoutComparing(ListingForm):
    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        if not place.is_file():
            raise DocumentError(f"no file {place}")
        return FormCheck(10, 0)


class RaisingSomethingElse(ListingForm):
    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        if not place.is_file():
            raise ZeroDivisionError("no file")
        return super().check(program, place, samples)


class ReturningText(ListingForm):
    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        return "passed"  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("form", "law", "counterexample"),
    [
        (WithoutTitle(), "members", "title is ''"),
        (WithTitleOfTwoLines(), "members", "title is 'one"),
        (WithoutCheck(), "members", "no method 'check'"),
        (ListingForm, "members", r"it is a class; give an object of it: ListingForm\(\)"),
        (object(), "members", "name is None"),
        (WithCapitals(), "the name", "'Listing'"),
        (CalledMemory(), "the name", "has a form 'memory'"),
        (BesideTheManifest(), "the place", "'manifest.json' is already used"),
        (InsideTheGoldenVectors(), "the place", "is already used"),
        (OutsideOfTheExport(), "the place", "lies outside the export"),
        (WithoutReason(), "operators", "the reason of Permute is ''"),
        (SilentAboutAnOperator(), "operators", "neither writes nor refuses Permute"),
        (RefusingWhatIsNoProblem(), "problems", "problems do not name the step 'pool'"),
        (WithProblemsOfOtherSteps(), "problems", "'elsewhere', which is neither a step"),
        (WithProblemsAsText(), "problems", "expected a Problem"),
        (WritingNothing(), "export", "no file at listing.json"),
        (WritingBeside(), "export", "export also wrote listing.log"),
        (WritingTheTime(), "determinism", "the file differs"),
        (Appending(), "determinism", "the file differs"),
        (ChangingTheProgram(), "untouched input", "law of export"),
        (ChangingASample(), "untouched input", "law of export"),
        (FailingItsOwnCheck(), "check", "1 mismatches; step 'pool' differs"),
        (ComparingNothing(), "check", "compared no integers"),
        (ReturningText(), "check", "'passed', expected a FormCheck"),
        (CheckingNothing(), "damage", "passes when any one of the files is missing"),
        (ReadingWithoutComparing(), "damage", "a byte of the file is altered"),
        (RaisingSomethingElse(), "damage", "ZeroDivisionError: no file"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_the_law_that_a_form_breaks_is_named(form: Any, law: str, counterexample: str):
    program, _ = small_program()
    with pytest.raises(FormError, match=f"breaks the law of {law} .*{counterexample}"):
        check_form(form, program)


class IgnoringItsProblems(ListingForm):
    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> int:
        place.write_text("whatever")
        return 0


class NamingOneProblem(ListingForm):
    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> int:
        raise FormError("step 'swap' is refused")


class LeavingAPart(ListingForm):
    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> int:
        place.with_suffix(".part").write_text("half of it")
        return super().export(program, place, samples)


@pytest.mark.parametrize(
    ("form", "counterexample"),
    [
        (IgnoringItsProblems(), "export raised no error"),
        (NamingOneProblem(), "does not name the step 'swap_back'"),
        (LeavingAPart(), "export left the file listing.part"),
    ],
)
def test_a_form_that_cannot_express_a_program_names_all_steps_and_writes_nothing(
    form: Any, counterexample: str
):
    with pytest.raises(FormError, match=f"breaks the law of refusal .*{counterexample}"):
        check_form(form, program_with_steps_that_a_listing_refuses())


class WithoutItsPackage(ListingForm):
    def problems(self, program: IntegerProgram) -> list[Problem]:
        raise MissingDependencyError("listings", "listings", "a listing")


def test_a_missing_package_is_no_broken_law():
    with pytest.raises(MissingDependencyError, match="listings"):
        check_form(WithoutItsPackage(), small_program()[0])


def test_the_program_and_the_samples_of_the_user_stay_as_they_are():
    program, codes = small_program()
    before, kept = program.content_hash(), codes.copy()
    check_form(ListingForm(), program, [{"x": codes[:1]}])
    assert program.content_hash() == before
    np.testing.assert_array_equal(codes, kept)
