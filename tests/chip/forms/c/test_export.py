"""A C project checks itself, and names what differs."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.random_program import merged, random_codes, random_program
from tests.chip.forms.c.cases import program_of_cases
from tests.chip.operators.operator_cases import GENERATORS
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip import NumpyEngine, export
from photomask.chip.formats import IntFormat
from photomask.chip.forms.c import CForm
from photomask.chip.operators import Clamp
from photomask.errors import DataError, ExportError, UsageError

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None or shutil.which("make") is None, reason="there is no C compiler"
)
CODES = small_program(batch=3)[1]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", params=["arrays", "binary"])
def pristine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled project of the small program with three samples."""
    folder = tmp_path_factory.mktemp("c") / "project"
    export(small_program()[0], folder, CODES, form=CForm(weights=request.param))
    done = run(folder, "make", "--no-print-directory", "check", "CFLAGS=-O1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("3 samples, 15 integers compared, 0 mismatches\n")
    return folder


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(pristine, tmp_path / "project"))


def check(project: Path) -> subprocess.CompletedProcess:
    constants = ["constants.bin"] if (project / "constants.bin").exists() else []
    return run(project, "./network", "check", "inputs.bin", "golden.bin", *constants)


@needs_compiler
def test_run_writes_the_golden_vectors(project: Path):
    constants = ["constants.bin"] if (project / "constants.bin").exists() else []
    done = run(project, "./network", "run", "inputs.bin", "outputs.bin", *constants)
    assert done.returncode == 0
    assert (project / "outputs.bin").read_bytes() == (project / "golden.bin").read_bytes()


@needs_compiler
def test_an_altered_golden_integer_is_named(project: Path):
    golden = bytearray((project / "golden.bin").read_bytes())
    expected = int.from_bytes(golden[7:8], "little", signed=True)
    golden[7] ^= 1
    (project / "golden.bin").write_bytes(golden)
    done = check(project)
    assert done.returncode == 1
    altered = int.from_bytes(golden[7:8], "little", signed=True)
    assert done.stdout == (
        f"first mismatch: sample 1, output logits[0, 2]: expected {altered}, got {expected}\n"
        "3 samples, 15 integers compared, 1 mismatches\n"
    )


@needs_compiler
@pytest.mark.parametrize("name", ["golden.bin", "inputs.bin"])
def test_a_truncated_file_of_samples_is_refused(project: Path, name: str):
    path = project / name
    path.write_bytes(path.read_bytes()[:-1])
    done = check(project)
    assert done.returncode == 2
    assert f"{name}: holds {path.stat().st_size} bytes, not a multiple of the" in done.stderr
    assert not done.stdout


@needs_compiler
def test_files_of_different_numbers_of_samples_are_refused(project: Path):
    path = project / "golden.bin"
    path.write_bytes(path.read_bytes()[:10])
    done = check(project)
    assert done.returncode == 2
    assert "golden.bin: does not hold one golden vector for every sample" in done.stderr


@needs_compiler
def test_a_missing_file_is_named(project: Path):
    (project / "golden.bin").unlink()
    assert "golden.bin: No such file" in check(project).stderr
    assert run(project, "./network").returncode == 2


@needs_compiler
def test_an_altered_weight_in_the_source_is_noticed(tmp_path: Path):
    export(small_program()[0], tmp_path / "project", CODES, form=CForm())
    path = tmp_path / "project" / "network.c"
    text = path.read_text()
    altered = re.sub(r"(step_classifier_weight\[180\] = \{\n    )-2,", r"\g<1>90,", text)
    assert altered != text
    path.write_text(altered)
    done = run(tmp_path / "project", "make", "--no-print-directory", "check", "CFLAGS=-O0")
    assert done.returncode != 0
    assert "first mismatch: sample 0, output logits[0, 0]: expected" in done.stdout


@needs_compiler
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:60], "truncated"),
        (lambda data: data[:20], "not a file of constants, or is truncated"),
        (lambda data: b"", "not a file of constants"),
        (lambda data: data + b"\0", "longer than it should be"),
        (lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:], "altered: its checksum"),
        (lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:], "another program"),
    ],
)
def test_constants_that_are_not_the_programs_are_refused(tmp_path: Path, change, problem: str):
    folder = tmp_path / "project"
    export(small_program()[0], folder, CODES, form=CForm(weights="binary"))
    run(folder, "make", "--no-print-directory", "CFLAGS=-O0")
    path = folder / "constants.bin"
    path.write_bytes(change(path.read_bytes()))
    done = check(folder)
    assert done.returncode == 2
    assert "constants.bin: " in done.stderr
    assert problem in done.stderr


@needs_compiler
def test_inputs_outside_the_edge_are_refused(tmp_path: Path):
    make = ProgramBuilder()
    x = make.input("x", (1, 4), bits=4)
    make.step("y", Clamp(low=0, high=9), [x], format=IntFormat(bits=4, signed=True))
    export(make.build("y"), tmp_path / "project", make.codes(2), form=CForm())
    (tmp_path / "project" / "inputs.bin").write_bytes(bytes([0, 1, 2, 3, 0, 8, 2, 3]))
    done = run(tmp_path / "project", "make", "--no-print-directory", "check", "CFLAGS=-O0")
    assert "inputs.bin: sample 1: input x holds integers outside the range that" in done.stderr


@needs_compiler
def test_all_operators_are_clean_under_the_sanitizers(tmp_path: Path):
    program, codes = program_of_cases(sorted(GENERATORS), range(100, 104))
    export(program, tmp_path / "cases", {name: x[:6] for name, x in codes.items()}, form=CForm())
    done = run(tmp_path / "cases", "make", "--no-print-directory", "sanitize")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(", 0 mismatches\n")


@needs_compiler
def test_random_programs_are_clean_under_the_sanitizers(tmp_path: Path):
    program = merged([random_program(seed) for seed in range(100, 108)])
    export(program, tmp_path / "programs", random_codes(program, 4), form=CForm(weights="binary"))
    done = run(tmp_path / "programs", "make", "--no-print-directory", "sanitize")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(", 0 mismatches\n")


def test_golden_vectors_are_the_oracles(tmp_path: Path):
    program = merged([random_program(seed) for seed in range(5)])
    codes = random_codes(program, 2)
    source = export(program, tmp_path / "project", codes, form=CForm())
    oracle = NumpyEngine(program).run(codes)
    content = (tmp_path / "project" / "golden.bin").read_bytes()
    for sample in range(2):
        for name in source.outputs:
            tensor = source.tensors[name]
            kind = np.dtype(tensor.ctype.removesuffix("_t")).newbyteorder("<")
            flat, content = content[: tensor.bytes], content[tensor.bytes :]
            rows = program.edges[name].shape[0]
            expected = oracle[name][sample * rows : (sample + 1) * rows]
            if len(oracle[name]) == rows:  # a constant
                expected = oracle[name]
            ordered = np.frombuffer(flat, kind)
            assert np.array_equal(ordered, expected.transpose(tensor.order).reshape(-1)), name
    assert content == b""


def test_samples_may_be_an_array_a_tensor_or_a_list_for_the_form(tmp_path: Path):
    program = small_program()[0]
    export(program, tmp_path / "a", CODES, form=CForm())
    CForm().export(program, tmp_path / "b", [{"x": CODES[i : i + 1]} for i in range(3)])
    export(program, tmp_path / "c", torch.from_numpy(CODES), form="c")
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / folder).rglob("*") if path.is_file()}
        for folder in "abc"
    ]
    assert files[0] == files[1] == files[2]


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path):
    program, folder = small_program()[0], tmp_path / "project"
    with pytest.raises(DataError, match="at least one sample"):
        export(program, folder, form=CForm())
    with pytest.raises(DataError, match="outside -128 to 127"):
        export(program, folder, CODES + 999, form=CForm())
    with pytest.raises(DataError, match="outside -128 to 127"):
        CForm().export(program, folder, [{"x": CODES[:1] + 999}])
    with pytest.raises(UsageError):
        CForm(weights="both")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_only_an_earlier_project_is_replaced(tmp_path: Path):
    program = small_program()[0]
    export(program, tmp_path / "project", CODES, form=CForm(weights="binary"))
    export(program, tmp_path / "project", CODES, form=CForm())
    assert not (tmp_path / "project" / "constants.bin").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="not an earlier output"):
        export(program, tmp_path / "other", CODES, form=CForm())
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]
