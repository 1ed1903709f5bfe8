"""What `check_outputs` and `check_export` say of conformance vectors, and of a damaged export."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.chip.forms.memory.receivers import WRONG, Receiver
from tests.chip.programs import small_program

from photomask.chip import export
from photomask.chip.forms.conformance.documents import ConformanceVectors
from photomask.chip.forms.file_records import FileRecord
from photomask.chip.forms.memory import Manifest, check_export, check_outputs
from photomask.chip.forms.memory.export import write_export
from photomask.chip.forms.memory.image import Encoding
from photomask.documents import sha256_of
from photomask.errors import DocumentError


def receive(export_folder: Path, place: Path, receiver: Receiver) -> None:
    """Writes what a receiver makes of the conformance vectors, as decimal numbers."""
    vectors = ConformanceVectors.load(export_folder / "conformance")
    place.mkdir(parents=True)
    for step, computed in receiver.run(vectors).items():
        text = "".join(f"{value}\n" for value in computed.values.reshape(-1).tolist())
        (place / f"{step}.dec").write_text(text)


def test_without_results_of_the_vectors_nothing_is_claimed_of_the_rounding(
    pristine_export, simulated
):
    report = check_outputs(pristine_export, simulated)
    assert report.passed
    assert not report.rounding_proven
    assert "rounding NOT PROVEN" in str(report)
    assert "PASSED" not in str(report)


def test_a_right_receiver_is_proven(pristine_export, simulated):
    golden = pristine_export / "conformance" / "golden"
    shutil.copytree(
        golden, simulated / "conformance", ignore=shutil.ignore_patterns("*.bin", "*.dec", "*.npy")
    )
    report = check_outputs(pristine_export, simulated)
    assert report.passed
    assert report.rounding_proven
    assert "rounding proven" in str(report)
    assert "PASSED" in str(report)


@pytest.mark.parametrize("receiver", WRONG[1:10], ids=lambda receiver: receiver.words)
def test_the_fault_of_a_receiver_is_named(receiver, pristine_export, simulated):
    """The golden vectors of the network itself show nothing."""
    receive(pristine_export, simulated / "conformance", receiver)
    report = check_outputs(pristine_export, simulated)
    assert report.first_mismatch is None
    assert not report.passed
    assert report.conformance is not None
    assert report.conformance.faults == (receiver.words,)
    assert f"rounding WRONG: {receiver.words}" in str(report)
    if receiver.rounding is not None:
        assert f"{receiver.words}; target 'asic' rounds halves up" in str(report)


def test_the_vectors_alone_can_be_checked(pristine_export, tmp_path):
    receive(pristine_export, tmp_path / "out" / "conformance" / "0", Receiver())
    report = check_outputs(pristine_export, tmp_path / "out")
    assert report.passed
    assert report.rounding_proven


def test_results_that_are_missing_or_short_prove_nothing(pristine_export, simulated):
    place = simulated / "conformance"
    receive(pristine_export, place, Receiver())
    first, second = sorted(place.iterdir())[:2]
    first.unlink()
    lines = second.read_text().splitlines()
    second.write_text("\n".join([*lines[:5], "x"]))
    report = check_outputs(pristine_export, simulated)
    assert report.conformance is not None
    assert report.conformance.state == "incomplete"
    assert report.conformance.vectors - report.conformance.compared > len(lines) - 6
    assert not report.rounding_proven


def test_a_file_of_no_step_is_a_problem(pristine_export, simulated):
    receive(pristine_export, simulated / "conformance", Receiver())
    (simulated / "conformance" / "rescaling_9.hex").write_text("00\n")
    report = check_outputs(pristine_export, simulated)
    assert report.problems[0].startswith("conformance/rescaling_9.hex: no edge")
    assert not report.passed


@pytest.mark.parametrize(
    "name",
    [
        "memory/layer1.conv/weight.hex",
        "memory/classifier/bias.npy",
        "golden/1/residual.bin",
        "program.safetensors",
        "conformance/vectors.json",
        "conformance/memory/general_half_up/shift.hex",
        "conformance/golden/0/general_half_up.dec",
    ],
)
def test_damage_of_the_export_is_named_as_the_exports(name, exported, simulated):
    path = exported / name
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DocumentError, match="is damaged, so the simulator") as raised:
        check_outputs(exported, simulated)
    assert name in str(raised.value)
    assert not check_export(exported).passed


def test_weakened_vectors_are_found(exported):
    """Whole and consistent files, but of vectors that any receiver passes."""
    program, codes = small_program()
    folder = exported / "conformance"
    vectors = ConformanceVectors.load(folder)
    weak = vectors.model_copy(update={"formats": vectors.formats[:1], "steps": vectors.steps[:1]})
    shutil.rmtree(exported)
    exported.mkdir()
    encodings = (Encoding.HEX,)
    manifest = write_export(program, exported, [{"x": codes[:1]}], encodings)
    shutil.rmtree(folder)
    export(weak.program(program.target), folder, weak.inputs())
    shutil.rmtree(folder / "conformance")
    (folder / "vectors.json").write_text(weak.render())
    inner = Manifest.load(folder).model_copy(update={"conformance": ()}).sealed()
    (folder / "manifest.json").write_text(inner.render())
    records = [forged(exported, record.path) for record in manifest.conformance]
    outer = manifest.model_copy(update={"conformance": tuple(records)}).sealed()
    (exported / "manifest.json").write_text(outer.render())
    report = check_export(exported)
    assert report.problems == ("conformance: the vectors are not the vectors of this program",)


def forged(folder: Path, name: str) -> FileRecord:
    path = folder / name
    return FileRecord(path=name, bytes=path.stat().st_size, sha256=sha256_of(path))


def test_an_export_of_the_first_version_is_read_and_proves_no_rounding(exported, simulated):
    shutil.rmtree(exported / "conformance")
    path = exported / "manifest.json"
    body = json.loads(path.read_text())
    del body["conformance"]
    body["schema_version"] = 1
    path.write_text(Manifest.parse(json.dumps(body), "old").sealed().render())
    assert "conformance" not in json.loads(path.read_text())
    assert check_export(exported).passed
    report = check_outputs(exported, simulated)
    assert report.passed
    assert not report.rounding_proven
    assert "the export holds no conformance vectors" in str(report)


def test_the_expected_values_lie_in_the_files_that_the_manifest_names(pristine_export):
    """The folder is an export like any other; its golden vectors are the expected values."""
    folder = pristine_export / "conformance"
    for step in ConformanceVectors.load(folder).steps:
        golden = np.load(folder / f"golden/0/{step.step}.npy")
        assert np.array_equal(golden, np.array([step.expected]))
        accumulators = np.load(folder / f"golden/0/{step.step}.accumulator.npy")
        assert np.array_equal(accumulators, np.array([step.accumulator]))
