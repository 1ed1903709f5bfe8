"""The reference design as a form: what it writes and refuses, and what its check reads back."""

from pathlib import Path

import numpy as np
import pytest
from tests.chip.forms.rtl.rtl_programs import NARROW, built, machine, shared_folder
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip import check_form, export
from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.forms.conformance.documents import ConformanceVectors
from photomask.chip.forms.form import Form
from photomask.chip.forms.rtl import RtlForm, simulation, support_report
from photomask.chip.forms.rtl.design import DESIGN_FILE, RtlDesign
from photomask.chip.forms.rtl.files import file_records
from photomask.chip.operators import OPERATORS, Clamp, Matmul, Operator
from photomask.chip.program import IntegerProgram
from photomask.chip.target import PRESETS
from photomask.errors import DataError, DocumentError, FormError, TargetError


@pytest.fixture
def narrow(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> RtlForm:
    """The form on the array whose build all tests share."""
    design = built(shared_folder(tmp_path_factory) / "rtl-test-4x4", NARROW)
    monkeypatch.setattr(simulation, "build", lambda *arguments: design)
    return RtlForm(NARROW)


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> RtlForm:
    """The form where no simulation may begin."""

    def refuse(folder: Path) -> None:
        raise AssertionError(f"{folder} is simulated")

    monkeypatch.setattr("photomask.chip.forms.rtl.export.simulate", refuse)
    return RtlForm(NARROW)


def written(form: RtlForm, folder: Path) -> tuple[IntegerProgram, dict[str, np.ndarray]]:
    """Exports a small program, and returns it and its sample."""
    program, codes = small_program(batch=1)
    sample = {program.inputs[0]: codes}
    form.export(program, folder, [sample])
    return program, sample


def too_wide() -> IntegerProgram:
    """Two steps that an 8-bit array cannot compute, and one that it can."""
    make = ProgramBuilder()
    x = make.input("x", (1, 3, 4, 4))
    wide = make.input("wide", (1, 3, 4, 4), bits=16)
    make.step("second", Matmul(zero_points=(0, 0), terms=4), [x, wide])
    make.step("clamp", Clamp(low=0, high=9), [x])
    make.step("first", Matmul(zero_points=(0, 0), terms=4), [wide, x])
    return make.build("second", "clamp", "first")


def test_it_is_a_form():
    assert isinstance(RtlForm(), Form)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_has_a_writer(operator: type[Operator]):
    assert RtlForm().refusal(operator) is None


def test_an_operator_that_has_neither_a_writer_nor_a_refusal_is_named():
    class Unknown(Clamp):
        """Of nobody."""

    with pytest.raises(FormError, match="the reference design neither writes nor refuses Unknown"):
        RtlForm().refusal(Unknown)


def test_its_problems_are_the_steps_that_do_not_run(tmp_path: Path):
    program, form = too_wide(), RtlForm(NARROW)
    problems = form.problems(program)
    assert [(problem.step, problem.operator) for problem in problems] == [
        ("second", "matmul"),
        ("first", "matmul"),
    ]
    steps = support_report(program, NARROW).steps
    assert [step.reason for step in steps] == [problems[0].reason, None, problems[1].reason]
    assert [step.descriptors > 0 for step in steps] == [False, True, False]
    sample = {name: np.zeros((1, 3, 4, 4), np.int64) for name in program.inputs}
    with pytest.raises(FormError) as raised:
        form.export(program, tmp_path / "rtl", [sample])
    assert all(str(problem) in str(raised.value) for problem in problems)
    assert not (tmp_path / "rtl").exists()


def test_wider_weights_and_activations_leave_no_problem():
    wide = machine(4, 4, weight_bits=16, activation_bits=16, accumulator_bits=40)
    assert RtlForm(wide).problems(too_wide()) == []


@pytest.mark.parametrize(
    ("accelerator", "reason"),
    [
        ("output_stationary", "weight stationary"),
        (machine(16, 17), "at most 256 lanes"),
        ("no such one", "'no such one' is neither an accelerator preset"),
    ],
    ids=["dataflow", "lanes", "name"],
)
def test_an_accelerator_that_the_design_cannot_be_is_refused_at_once(
    accelerator: Accelerator | str, reason: str
):
    with pytest.raises(TargetError, match=reason):
        RtlForm(accelerator)


def test_an_export_without_samples_is_refused(tmp_path: Path):
    program, _ = small_program(batch=1)
    with pytest.raises(DataError, match="at least one sample"):
        RtlForm().export(program, tmp_path / "rtl", [])
    assert not (tmp_path / "rtl").exists()


def test_the_function_writes_the_bytes_of_the_form(tmp_path: Path):
    program, codes = small_program(batch=2)
    name = program.inputs[0]
    samples = [{name: codes[:1]}, {name: codes[1:]}]
    design = RtlForm(NARROW).export(program, tmp_path / "form", samples)
    assert design == export(program, tmp_path / "function", codes, form=RtlForm(accelerator=NARROW))
    assert file_records(tmp_path / "form") == file_records(tmp_path / "function")


def test_check_compares_every_golden_integer_and_every_conformance_vector(
    narrow: RtlForm, tmp_path: Path
):
    program, _ = written(narrow, tmp_path / "rtl")
    found = narrow.check(program, tmp_path / "rtl", [])
    assert found.passed
    sizes = [int(np.prod(program.edges[step.output].shape)) for step in program.steps]
    vectors = ConformanceVectors.load(tmp_path / "rtl" / "conformance")
    assert found.integers == sum(sizes) + vectors.count
    assert (found.mismatches, found.problems) == (0, ())


def test_it_keeps_the_contract(narrow: RtlForm):
    assert check_form(narrow, small_program(batch=1)[0]) == []
    assert {problem.step for problem in check_form(narrow, too_wide())} == {"first", "second"}


@pytest.mark.parametrize("program", [".", "conformance"])
def test_check_counts_wrong_integers_and_names_the_first(
    program: str, narrow: RtlForm, tmp_path: Path
):
    """One golden word, or one expected result, is forged, and its hash with it."""
    folder = tmp_path / "rtl"
    exported, _ = written(narrow, folder)
    if program == ".":
        path = folder / "golden" / "0" / "step_0.hex"
        text = path.read_text()
        path.write_text(("1" if text[-2] != "1" else "2").join([text[:-2], text[-1]]))
    else:
        path = folder / "conformance" / "vectors.json"
        vectors = ConformanceVectors.load(path.parent)
        step = vectors.steps[0]
        row = (step.expected[0][0] ^ 1, *step.expected[0][1:])
        forged = step.model_copy(update={"expected": (row, *step.expected[1:])})
        steps = (forged, *vectors.steps[1:])
        path.write_text(vectors.model_copy(update={"steps": steps}).render())
    design = RtlDesign.load(folder)
    design = design.model_copy(update={"files": file_records(folder)}).sealed()
    (folder / DESIGN_FILE).write_text(design.render())
    found = narrow.check(exported, folder, [])
    assert not found.passed
    assert found.mismatches == 1
    (problem,) = found.problems
    assert ("of the accumulators memory" if program == "." else "rounding WRONG") in problem


def test_check_does_not_simulate_another_program(unbuilt: RtlForm, tmp_path: Path):
    written(unbuilt, tmp_path / "rtl")
    other, _ = small_program(PRESETS["tflite"], batch=1)
    found = unbuilt.check(other, tmp_path / "rtl", [])
    assert not found.passed
    (problem,) = found.problems
    assert problem.startswith(f"{tmp_path / 'rtl'} holds another program than the one")


@pytest.mark.parametrize("name", ["README.md", "rtl/vector_unit.sv", "passes.txt"])
def test_check_does_not_simulate_what_is_not_as_it_was_written(
    name: str, unbuilt: RtlForm, tmp_path: Path
):
    program, _ = written(unbuilt, tmp_path / "rtl")
    path = tmp_path / "rtl" / name
    path.write_bytes(path.read_bytes().replace(b"e", b"a", 1))
    found = unbuilt.check(program, tmp_path / "rtl", [])
    assert not found.passed
    assert found.problems == (f"{name} (changed): the file is not as it was exported",)


def test_check_refuses_a_changed_golden_vector(unbuilt: RtlForm, tmp_path: Path):
    program, _ = written(unbuilt, tmp_path / "rtl")
    (tmp_path / "rtl" / "golden" / "0" / "step_0.hex").unlink()
    with pytest.raises(DocumentError, match="says nothing about the design"):
        unbuilt.check(program, tmp_path / "rtl", [])
