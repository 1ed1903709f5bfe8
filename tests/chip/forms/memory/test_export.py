import errno
import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.chip.forms.memory.plain import plain_tensor
from tests.chip.programs import ProgramBuilder, small_builder, small_program

from photomask.chip import check_export, export
from photomask.chip.forms import MemoryForm
from photomask.chip.forms.memory import export as folder
from photomask.chip.operators import Add, Clamp
from photomask.chip.program import IntegerProgram, NumpyEngine
from photomask.chip.target import PRESETS
from photomask.documents import RECORD_FILE
from photomask.errors import DataError, ExportError, UsageError


def contents(path: Path) -> dict[str, bytes]:
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def as_array(tensor: dict[tuple[int, ...], int], shape: list[int]) -> np.ndarray:
    return np.array([tensor[index] for index in np.ndindex(*shape)]).reshape(shape)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"memory_word_bits": 8, "activation_layout": "channels_last"},
        {"memory_word_bits": 33, "first_lane": "most_significant"},
        {"memory_word_bits": 128, "weight_layout": "kernel_input_output"},
        {
            "memory_word_bits": 24,
            "first_lane": "most_significant",
            "weight_layout": "output_kernel_input",
            "activation_layout": "channels_last",
        },
    ],
)
def test_every_file_means_what_the_manifest_says(fields, tmp_path):
    """Read from the JSON and the text alone, with no code of the package."""
    program, codes = small_program(PRESETS["asic"].model_copy(update=fields))
    export(program, tmp_path / "out", codes, form=MemoryForm(encodings=("hex", "bin", "dec")))
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    for record in manifest["memory"]:
        tensor = plain_tensor(tmp_path / "out", record, manifest["words"])
        assert np.array_equal(as_array(tensor, record["shape"]), program.tensors[record["tensor"]])
    golden = dict(NumpyEngine(program).edges({"x": codes}))
    for record in manifest["golden"]:
        tensor = plain_tensor(tmp_path / "out", record, manifest["words"])
        sample = record["sample"]
        expected = golden[record["edge"]][sample : sample + 1]
        assert np.array_equal(as_array(tensor, record["shape"]), expected)
    report = check_export(tmp_path / "out")
    assert report.passed, str(report)


def test_every_tensor_and_every_edge_has_its_file(pristine_export):
    manifest = json.loads((pristine_export / "manifest.json").read_text())
    program, _ = small_program()
    golden = {(r["sample"], r["edge"], r["encoding"]) for r in manifest["golden"]}
    encodings = ("hex", "bin", "dec", "npy")
    assert golden == {(s, e, f) for s in (0, 1) for e in program.edges for f in encodings}
    memory = {(r["step"], r["role"]) for r in manifest["memory"]}
    assert memory == {(step.name, role) for step in program.steps for role in step.tensors}
    parts = ("memory", "golden", "documents", "conformance")
    recorded = {r["path"] for part in parts for r in manifest[part]}
    inner = json.loads((pristine_export / "conformance/manifest.json").read_text())
    recorded |= {f"conformance/{r['path']}" for part in parts for r in inner[part]}
    assert recorded | {"manifest.json", RECORD_FILE} == set(contents(pristine_export))
    assert {r["role"] for r in manifest["golden"]} == {"input", "accumulator", "activation"}


def test_the_same_program_and_inputs_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        program, codes = small_program()
        export(program, tmp_path / name, codes, form=MemoryForm(encodings=("npy", "hex")))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_exported_program_loads(pristine_export):
    program, _ = small_program()
    assert IntegerProgram.load(pristine_export).content_hash() == program.content_hash()


def test_torch_codes_and_a_number_of_samples_are_taken(tmp_path):
    program, codes = small_program(batch=3)
    manifest = export(program, tmp_path / "out", torch.from_numpy(codes), samples=2)
    assert manifest.samples == 2
    assert sorted(path.name for path in (tmp_path / "out/golden").iterdir()) == ["0", "1"]


def test_a_program_with_two_inputs_takes_a_mapping(tmp_path):

    make = ProgramBuilder()
    a, b = make.input("a", (1, 4)), make.input("B", (1, 4))
    program = make.build(make.step("sum", Add(coefficients=(1, -1), bias=3), [a, b]))
    codes = make.codes(2)
    with pytest.raises(DataError, match="pass a mapping"):
        export(program, tmp_path / "out", codes["a"])
    export(program, tmp_path / "out", codes)
    assert check_export(tmp_path / "out").passed
    with pytest.raises(DataError):
        export(program, tmp_path / "out", {"a": codes["a"]})


def test_names_that_differ_only_by_case_or_by_unsafe_letters_get_their_own_files(tmp_path):

    make = ProgramBuilder()
    x = make.input("x", (1, 4))
    for low, name in enumerate(["a/b", "a:b", "A_B", "../a_b"]):
        x = make.step(name, Clamp(low=low, high=100), [x], output=f"edge {name}")
    program = make.build(x)
    export(program, tmp_path / "out", make.codes(1))
    files = list(contents(tmp_path / "out/golden"))
    assert len({name.casefold() for name in files}) == 5
    assert check_export(tmp_path / "out").passed


@pytest.mark.parametrize("encodings", [("hexx",), (), ("hex", "HEX"), "binary"])
def test_an_unknown_encoding_is_a_usage_error(encodings):
    with pytest.raises(UsageError, match="choose from hex, bin, dec, npy"):
        MemoryForm(encodings=encodings)


def test_encodings_are_sorted_and_each_is_written_once():
    assert MemoryForm(encodings=("npy", "hex", "npy")).encodings == ("hex", "npy")


@pytest.mark.parametrize("samples", [0, -1, 3])
def test_an_impossible_number_of_samples_is_a_data_error(samples, tmp_path):
    program, codes = small_program()
    with pytest.raises(DataError, match="samples of a batch of 2"):
        export(program, tmp_path / "out", codes, samples=samples)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "codes",
    [np.zeros((1, 2, 6, 6)), np.full((1, 2, 6, 6), 200), np.zeros((0, 2, 6, 6), np.int64)],
    ids=["float", "outside the format", "empty"],
)
def test_codes_that_do_not_fit_are_a_data_error(codes, tmp_path):
    program, _ = small_program()
    with pytest.raises(DataError):
        export(program, tmp_path / "out", codes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()],
    ids=["full disk", "interrupt", "memory"],
)
def test_a_failure_in_the_middle_leaves_the_old_export_and_nothing_else(
    failure, tmp_path, monkeypatch
):
    make, output = small_builder()
    program = make.build(output)
    export(program, tmp_path / "out", make.codes(1))
    before = contents(tmp_path / "out")
    write_bytes, written = Path.write_bytes, []

    def fail_late(self: Path, content: bytes) -> int:
        written.append(self)
        if len(written) == 12:
            raise failure
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", fail_late)
    expected = ExportError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        export(program, tmp_path / "out", make.codes(1))
    assert len(written) == 12
    written.clear()
    with pytest.raises(expected):
        export(program, tmp_path / "new", make.codes(1))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert contents(tmp_path / "out") == before


def exit_code_of(function: Callable[[], object]) -> int:
    """Runs `function` in a process of its own; minus the signal's number where one ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        except ExportError as error:
            code = 2 if "cannot write" in str(error) else 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("share", [0.001, 0.02, 0.1, 0.999])
def test_a_disk_that_takes_no_more_is_an_export_error(share, tmp_path):
    """The kernel itself refuses: no file may be larger than a share of the largest."""
    program, codes = small_program()
    export(program, tmp_path / "out", codes)
    before = contents(tmp_path / "out")
    largest = max(map(len, before.values()))

    def export_with_little_space() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * largest),) * 2)
        export(program, tmp_path / "out", codes)

    assert exit_code_of(export_with_little_space) == 2
    assert contents(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_kill_in_the_middle_leaves_the_old_export(tmp_path, monkeypatch):
    program, codes = small_program()
    export(program, tmp_path / "out", codes)
    before = contents(tmp_path / "out")
    monkeypatch.setattr(folder, "render_readme", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    code = exit_code_of(lambda: export(program, tmp_path / "out", codes))
    assert code == -signal.SIGKILL
    assert contents(tmp_path / "out") == before


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    program, codes = small_program()
    with pytest.raises(ExportError, match="not an earlier output"):
        export(program, tmp_path / "mine", codes)
    assert contents(tmp_path / "mine") == {"thesis.txt": b"all of it"}


def test_an_earlier_export_is_replaced_whole(tmp_path):
    program, codes = small_program()
    export(program, tmp_path / "out", codes, form=MemoryForm(encodings=("hex", "dec")))
    export(program, tmp_path / "out", codes[:1])
    assert not list((tmp_path / "out").rglob("*.dec"))
    assert [path.name for path in (tmp_path / "out/golden").iterdir()] == ["0"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_comment_of_an_image_is_one_ascii_line(tmp_path):

    make = ProgramBuilder()
    x = make.step("é\n0000", Clamp(low=0, high=9), [make.input("x", (1, 4))])
    export(make.build(x), tmp_path / "out", make.codes(1))
    assert check_export(tmp_path / "out").passed
    assert (tmp_path / "out/golden/0/__0000.hex").read_bytes().count(b"\n") == 5
