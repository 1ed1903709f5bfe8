import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from photomask.chip import IntegerProgram, NumpyEngine
from photomask.chip.forms.form import FormCheckDocument
from photomask.chip.forms.memory import CheckReport
from photomask.cli import app
from photomask.cli import demo as demo_module

MODEL = """
import torch
from torch import nn

torch.manual_seed(3)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, stride=2)
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x):
        return self.head(torch.relu(self.convolution(x)).flatten(1))


def net():
    torch.manual_seed(3)
    return Net()


def other():
    torch.manual_seed(4)
    return Net()


def images():
    return torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def sine():
    class Sine(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real

    return Sine()
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model file, data, and an export of the model."""
    folder = tmp_path_factory.mktemp("command_line")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    np.save(folder / "images.npy", images.numpy())
    done = call(
        "chip", "convert", f"{folder}/model.py:net", "--data", f"{folder}/model.py:images",
        "--output", folder / "export", "--golden-samples", 2,
        "--encoding", "hex", "--encoding", "npy",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


def verify(place: Path, *more: object, model: str = "net", export: Path | None = None) -> Result:
    return call(
        "chip", "verify", f"{place}/model.py:{model}", export or place / "export",
        "--data", place / "images.npy", *more,
    )  # fmt: skip


def test_convert_writes_an_export_that_the_library_loads(place: Path):
    program = IntegerProgram.load(place / "export")
    assert program.target.name == "asic"
    assert list((place / "export" / "memory").rglob("*.hex"))
    assert sorted(path.name for path in (place / "export" / "golden").iterdir()) == ["0", "1"]


def test_verify_passes_and_writes_the_reports(place: Path, tmp_path: Path):
    done = verify(
        place, "--html", tmp_path / "r.html", "--json", tmp_path / "r.json",
        "--accelerator", "reference",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "PASSED: " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("files: PASSED")
    assert json.loads((tmp_path / "r.json").read_text())["samples"] == 40
    page = (tmp_path / "r.html").read_text()
    assert "<svg" in page
    assert "Roofline" in page or "roofline" in page


def test_verify_takes_labels(place: Path, tmp_path: Path):
    np.save(tmp_path / "labels.npy", np.zeros(40, dtype=np.int64))
    done = verify(place, "--labels", tmp_path / "labels.npy", "--samples", 10)
    assert "top-1, float" in done.stdout
    assert "10 samples" in done.stdout


def test_verify_takes_an_archive_with_labels(place: Path, tmp_path: Path):
    images, labels = np.load(place / "images.npy"), np.zeros(40, dtype=np.int64)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    done = call(
        "chip", "verify", f"{place}/model.py:net", place / "export", "--data",
        tmp_path / "data.npz",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "top-1, float" in done.stdout


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(41, int), "there are 40 samples"),
        (np.zeros(10, int), "there are 40 samples"),
        (np.zeros(40), "expected integers"),
    ],
)
def test_labels_that_do_not_belong_to_the_samples_are_refused(
    place: Path, tmp_path: Path, labels: np.ndarray, message: str
):
    np.save(tmp_path / "labels.npy", labels)
    done = verify(place, "--labels", tmp_path / "labels.npy", "--samples", 10)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_convert_takes_a_folder_of_pictures_with_a_hyphen_in_its_name(place: Path, tmp_path: Path):
    folder = tmp_path / "my-pictures"
    folder.mkdir()
    form = {"size": [8, 8], "channels": 1, "mean": [0.5], "std": [0.5]}
    (folder / "preprocessing.json").write_text(json.dumps(form))
    for number in range(2):
        Image.new("L", (8, 8), 100 * number).save(folder / f"{number}.png")
    done = call(
        "chip", "convert", f"{place}/model.py:net", "--data", folder,
        "--output", tmp_path / "export",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    program = IntegerProgram.load(tmp_path / "export")
    assert program.edges[program.inputs[0]].shape[1:] == (1, 8, 8)


@pytest.mark.parametrize(
    ("thresholds", "status"),
    [('{"min_output_sqnr_db": 5}', 0), ('{"min_output_sqnr_db": 99}', 1), ('{"min": 5}', 2)],
)
def test_thresholds_decide_the_exit_status(
    place: Path, tmp_path: Path, thresholds: str, status: int
):
    (tmp_path / "t.json").write_text(thresholds, encoding="utf-8")
    done = verify(place, "--thresholds", tmp_path / "t.json")
    assert done.exit_code == status, done.output


def test_verify_fails_for_another_model_of_the_same_shape(place: Path):
    done = verify(place, model="other")
    assert done.exit_code == 1
    assert "FAILED" in done.stdout


def test_verify_fails_for_an_altered_file(place: Path, tmp_path: Path):
    shutil.copytree(place / "export", tmp_path / "export")
    image = next((tmp_path / "export" / "memory").rglob("*weight*.hex"))
    image.write_text(image.read_text().replace("1", "2", 3), encoding="utf-8")
    done = verify(place, export=tmp_path / "export")
    assert done.exit_code == 1
    assert image.name in done.stdout


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_run_gives_the_oracles_integers_for_floats_and_for_codes(
    place: Path, tmp_path: Path, engine: str
):
    program = IntegerProgram.load(place / "export")
    images = np.load(place / "images.npy")
    codes = program.quantize_input(torch.from_numpy(images)).numpy()
    expected = NumpyEngine(program).run({program.inputs[0]: codes})[program.outputs[0]]
    np.save(tmp_path / "codes.npy", codes.astype(np.uint8))
    for source in (place / "images.npy", tmp_path / "codes.npy"):
        done = call(
            "chip", "run", place / "export", "--input", source, "--output", tmp_path / "y.npy",
            "--engine", engine,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert np.array_equal(np.load(tmp_path / "y.npy"), expected)


def test_run_gives_real_values_on_request(place: Path, tmp_path: Path):
    arguments = ["chip", "run", place / "export", "--input", place / "images.npy"]
    assert call(*arguments, "--output", tmp_path / "y.npy").exit_code == 0
    assert call(*arguments, "--output", tmp_path / "r.npy", "--real").exit_code == 0
    program = IntegerProgram.load(place / "export")
    edge = program.edges[program.outputs[0]]
    codes = torch.from_numpy(np.load(tmp_path / "y.npy"))
    assert np.array_equal(np.load(tmp_path / "r.npy"), edge.dequantize(codes).numpy())


def test_check_passes_golden_vectors_and_names_the_first_mismatch(place: Path, tmp_path: Path):
    shutil.copytree(place / "export" / "golden", tmp_path / "simulated")
    done = call("chip", "check", place / "export", tmp_path / "simulated")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].startswith("MATCHED, rounding not proven")
    vectors = place / "export" / "conformance" / "golden" / "0"
    shutil.copytree(vectors, tmp_path / "simulated" / "conformance")
    done = call("chip", "check", place / "export", tmp_path / "simulated")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].startswith("PASSED")
    path = tmp_path / "simulated" / "1" / "head.npy"
    values = np.load(path)
    values.flat[1] ^= 1
    np.save(path, values)
    document = tmp_path / "check.json"
    done = call("chip", "check", place / "export", tmp_path / "simulated", "--json", document)
    assert done.exit_code == 1
    assert "first mismatch: sample 1, edge 'head'" in done.stdout
    assert str(CheckReport.parse(document.read_text(), "check")) == done.stdout.rstrip("\n")


def test_the_check_of_an_export_itself_is_written_as_json(place: Path, tmp_path: Path):
    document = tmp_path / "check.json"
    done = call("chip", "check", place / "export", "--json", document)
    assert done.exit_code == 0, done.output
    found = FormCheckDocument.parse(document.read_text(), "check")
    assert (found.form, found.passed, found.mismatches) == ("memory", True, 0)
    assert f"{found.integers:,} integers compared" in done.stdout


def test_check_refuses_a_damaged_export_before_it_looks_at_the_simulator(
    place: Path, tmp_path: Path
):
    damaged = Path(shutil.copytree(place / "export", tmp_path / "damaged"))
    image = next(path for path in sorted(damaged.rglob("weight.*")) if path.is_file())
    content = bytearray(image.read_bytes())
    content[-3] ^= 1
    image.write_bytes(content)
    done = call("chip", "check", damaged, damaged / "golden")
    assert done.exit_code == 2
    said = "".join(done.output.split())
    assert "isdamaged" in said
    assert image.relative_to(damaged).as_posix() in said


def test_show_prints_steps_sizes_and_accumulators(place: Path):
    done = call("chip", "show", place / "export")
    assert done.exit_code == 0
    for word in ("convolution.accumulator", "requantize", "packed", "of 32 bits, proven"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chip", "show", "nowhere"], "nowhere"),
        (["chip", "check", "nowhere", "nowhere"], "no folder"),
        (["chip", "check", "PLACE/export", "PLACE", "--format", "c"], "leave out --format"),
        (["chip", "convert", "alexnet", "--data", "fashion-mnist", "--output", "o"], "zoo"),
        (["chip", "convert", "PLACE/model.py:no", "--data", "x", "--output", "o"], "no"),
        (
            ["chip", "convert", "PLACE/model.py:sine", "--data", "PLACE/images.npy",
             "--output", "o"],
            "no integer form",
        ),
        (
            ["chip", "convert", "PLACE/model.py:net", "--data", "PLACE/model.py",
             "--output", "o"],
            "no images",
        ),
        (
            ["chip", "convert", "PLACE/model.py:net", "--data", "PLACE/images.npy",
             "--output", "o", "--recipe", "w99"],
            "w99",
        ),
        (
            ["chip", "convert", "PLACE/model.py:net", "--data", "PLACE/images.npy",
             "--output", "o", "--encoding", "elf"],
            "elf",
        ),
        (
            ["chip", "convert", "PLACE/model.py:net", "--data", "PLACE/images.npy",
             "--output", "PLACE"],
            "not empty",
        ),
        (
            ["chip", "run", "PLACE/export", "--input", "PLACE/model.py", "--output", "o"],
            "not a plain",
        ),
        (["chip", "run", "PLACE/export", "--input", "none.npy", "--output", "o"], "no file"),
        (
            ["chip", "verify", "PLACE/model.py:net", "PLACE/export", "--data", "PLACE/images.npy",
             "--samples", "41"],
            "asked for 41",
        ),
        (
            ["chip", "verify", "PLACE/export", "PLACE/model.py:net", "--data", "PLACE/images.npy"],
            "the model comes first: photomask chip verify MODEL DIR",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_status_two(
    arguments: list[str], message: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = call(*(argument.replace("PLACE", str(place)) for argument in arguments))
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ")
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["chip", "nothing"], ["chip", "show"], ["chip", "run", "x", "--engine", "rtl"]]
)
def test_a_wrong_command_line_is_status_two(arguments: list[str]):
    assert call(*arguments).exit_code == 2


def test_a_missing_extra_is_named_before_any_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = verify(place, "--html", tmp_path / "r.html")
    assert done.exit_code == 2
    assert "photomask[report]" in done.stderr
    assert not done.stdout


def test_the_demo_ends_with_one_line_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from photomask import zoo

    pictures, labels = zoo.test_set()
    monkeypatch.setattr(zoo, "test_set", lambda: (pictures[:96], labels[:96]))
    monkeypatch.setattr(demo_module, "CALIBRATION_IMAGES", 32)
    done = call("demo", "chip", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["engine_mismatches"] == 0
    assert found["images"] == 96
    assert found["integer_top1"] > 90
    assert abs(found["float_top1"] - found["integer_top1"]) < 3
    assert found["seconds"] > 0
    assert (tmp_path / "out" / "report.html").is_file()
    assert call("chip", "show", tmp_path / "out").exit_code == 0
    golden = tmp_path / "out" / "golden"
    assert call("chip", "check", tmp_path / "out", golden).exit_code == 0
