"""The C form: what it cannot express is known before, and its check reads back what it wrote."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip.formats import IntFormat
from photomask.chip.forms.c import CForm
from photomask.chip.forms.conformance.vectors import conformance_vectors
from photomask.chip.forms.form import Form
from photomask.chip.operators import OPERATORS, Clamp
from photomask.chip.program import IntegerProgram
from photomask.documents import OutputRecord
from photomask.errors import DocumentError, EngineError, FormError, UsageError

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
PROGRAM, CODES = small_program(batch=3)
SAMPLES = [{"x": CODES[index : index + 1]} for index in range(3)]
FORM = CForm(compiler="cc -O0")
RECORD = ".photomask.json"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of the small program with three samples."""
    FORM.export(PROGRAM, tmp_path / "project", SAMPLES)
    return tmp_path / "project"


def replace(folder: Path, name: str, pattern: str, by: str) -> None:
    """Changes a file, and the record as if the export had written it so."""
    path = folder / name
    text = path.read_text()
    changed = re.sub(pattern, by, text, count=1)
    assert changed != text
    path.write_text(changed)
    record_again(folder)


def record_again(folder: Path) -> None:
    (folder / RECORD).unlink()
    (folder / RECORD).write_text(OutputRecord.of(folder, "C project").render())


def too_large() -> IntegerProgram:
    """A program with two steps at an edge that C cannot index, and one without."""
    make, int8 = ProgramBuilder(), IntFormat(bits=8, signed=True)
    x, other = make.input("x", (1, 1 << 16, 1 << 15)), make.input("other", (1, 3))
    y = make.step("y", Clamp(low=0, high=9), [x], format=int8)
    z = make.step("z", Clamp(low=0, high=5), [y], format=int8)
    return make.build(z, make.step("fine", Clamp(low=0, high=5), [other], format=int8))


def test_it_is_a_form():
    form: Form = FORM
    assert isinstance(form, Form)
    assert (form.name, form.place) == ("c", "c")


def test_no_operator_is_refused():
    operators = OPERATORS
    assert len(operators) > 20
    assert [FORM.refusal(operator) for operator in operators] == [None] * len(operators)


def test_a_program_without_problems_has_none():
    assert FORM.problems(PROGRAM) == []


def test_problems_are_what_an_export_is_refused_for(tmp_path: Path):
    program = too_large()
    problems = FORM.problems(program)
    assert [problem.step for problem in problems] == ["y", "z"]
    samples = [{"x": np.zeros((1, 1, 1), np.int64), "other": np.zeros((1, 3), np.int64)}]
    with pytest.raises(FormError) as error:
        FORM.export(program, tmp_path / "project", samples)
    assert all(str(problem) in str(error.value) for problem in problems)
    assert not list(tmp_path.iterdir())


def test_weights_are_arrays_or_binary():
    with pytest.raises(UsageError, match="'arrays' or 'binary', not 'file'"):
        CForm(weights="file")  # type: ignore[arg-type]


@needs_compiler
@pytest.mark.parametrize("weights", ["arrays", "binary"])
def test_a_check_compares_every_output_integer_and_every_vector(weights, tmp_path: Path):
    form = CForm(weights=weights, compiler="cc -O0")
    form.export(PROGRAM, tmp_path / "project", SAMPLES)
    before = contents(tmp_path / "project")
    found = form.check(PROGRAM, tmp_path / "project", [])
    vectors = conformance_vectors(PROGRAM)
    assert vectors is not None
    assert (found.integers, found.mismatches) == (3 * 5 + vectors.count, 0)
    assert found.passed
    assert contents(tmp_path / "project") == before


@needs_compiler
def test_a_program_that_rescales_nothing_has_no_vectors_to_compare(tmp_path: Path):
    make = ProgramBuilder()
    y = make.step(
        "y", Clamp(low=0, high=9), [make.input("x", (1, 7))], format=IntFormat(bits=8, signed=True)
    )
    program, codes = make.build(y), make.codes(1)
    FORM.export(program, tmp_path / "project", [codes])
    assert FORM.check(program, tmp_path / "project", []).integers == 7


@needs_compiler
def test_integers_that_differ_are_counted_as_the_project_counts_them(project: Path):
    replace(project, "network.c", r"(step_classifier_weight\[180\] = \{\n    )-2,", r"\g<1>90,")
    found = FORM.check(PROGRAM, project, [])
    done = subprocess.run(
        ["make", "-s", "network", "CFLAGS=-O0"], cwd=project, capture_output=True, check=True
    )
    done = subprocess.run(
        ["./network", "check", "inputs.bin", "golden.bin"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    first, last = done.stdout.splitlines()
    assert last == f"3 samples, 15 integers compared, {found.mismatches} mismatches"
    assert found.mismatches > 0
    assert not found.passed
    assert found.problems == (f"network: {first}",)


@needs_compiler
def test_a_rounding_that_only_the_vectors_tell_is_counted(project: Path):
    replace(project, "conformance/conformance.c", r"\(value \+ half, ", "(value + half - 1, ")
    found = FORM.check(PROGRAM, project, [])
    assert found.mismatches > 0
    assert [problem.partition(":")[0] for problem in found.problems] == ["conformance"]


@needs_compiler
def test_golden_integers_that_are_not_the_oracles_are_a_problem(project: Path):
    golden = bytearray((project / "golden.bin").read_bytes())
    golden[7] ^= 1
    (project / "golden.bin").write_bytes(golden)
    record_again(project)
    found = FORM.check(PROGRAM, project, [])
    assert found.mismatches == 0
    assert not found.passed
    assert "golden.bin holds other integers than the oracle computes" in found.problems[0]


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
    ],
    ids=["missing", "truncated", "altered"],
)
def test_every_damaged_file_is_named(damage, tmp_path: Path):
    form, folder = CForm(weights="binary"), tmp_path / "project"
    form.export(PROGRAM, folder, SAMPLES)
    names = sorted(set(contents(folder)) - {RECORD})
    assert {"Makefile", "conformance/vectors.json", "constants.bin", "golden.bin"} < set(names)
    for name in names:
        whole = (folder / name).read_bytes()
        damage(folder / name)
        with pytest.raises(DocumentError, match=re.escape(name)):
            form.check(PROGRAM, folder, [])
        (folder / name).write_bytes(whole)


def test_samples_that_are_not_whole_are_refused(project: Path):
    path = project / "inputs.bin"
    path.write_bytes(path.read_bytes()[:-1])
    record_again(project)
    with pytest.raises(DocumentError, match=r"inputs.bin holds 215 bytes, not a multiple of .* 72"):
        FORM.check(PROGRAM, project, [])


def test_what_is_no_project_is_refused(project: Path, tmp_path: Path):
    (project / RECORD).unlink()
    for folder in (project, tmp_path / "nothing"):
        with pytest.raises(DocumentError, match="no C project that Photomask wrote"):
            FORM.check(PROGRAM, folder, [])


def test_the_project_of_another_program_is_refused(project: Path):
    with pytest.raises(DocumentError, match="written from another program"):
        FORM.check(other_program(), project, [])


def other_program() -> IntegerProgram:
    make = ProgramBuilder()
    x = make.input("x", (1, 2, 6, 6))
    return make.build(
        make.requantize("y", make.convolution("conv", x, 3), IntFormat(bits=8, signed=True))
    )


def test_a_missing_compiler_is_named(project: Path):
    with pytest.raises(EngineError, match="no C compiler 'no-such-cc'"):
        CForm(compiler="no-such-cc").check(PROGRAM, project, [])


def test_a_compiler_that_is_no_command_line_is_refused(project: Path):
    with pytest.raises(UsageError, match="not a valid command line: No closing quotation"):
        CForm(compiler="cc '").check(PROGRAM, project, [])


@needs_compiler
@pytest.mark.parametrize(
    ("body", "problem"),
    [("return 3;", "failed with status 3"), ("*(volatile int *)0 = argc;", "status -")],
)
def test_a_compiled_project_that_fails_is_an_error(project: Path, body: str, problem: str):
    replace(
        project, "main.c", r"(int main\(int argc, char \*\*argv\)\n\{)", rf"\1 (void)argv; {body}"
    )
    with pytest.raises(EngineError, match=problem):
        FORM.check(PROGRAM, project, [])
