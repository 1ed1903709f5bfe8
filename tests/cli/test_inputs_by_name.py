"""Models and programs with several inputs, whose data are arrays by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from photomask.chip import IntegerProgram, NumpyEngine
from photomask.cli import app

MODEL = """
import torch
from torch import nn


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, words, facts):
        return self.head(self.table(words).mean(1) + facts)


def reader():
    torch.manual_seed(3)
    return Reader()


def arrays():
    generator = torch.Generator().manual_seed(4)
    words = torch.randint(0, 7, (6, 4), generator=generator)
    return {"words": words, "facts": torch.randn(6, 5, generator=generator).numpy()}


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, words):
        return self.head(self.table(words).mean(1))
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(done: Result) -> str:
    return " ".join(done.output.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of two inputs, its data, and its export."""
    folder = tmp_path_factory.mktemp("by_name")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    random = np.random.default_rng(5)
    # Neither the order nor the dtypes are those that the model computes with.
    arrays = {
        "facts": random.normal(size=(12, 5)).astype(np.float64),
        "words": random.integers(0, 7, (12, 4)).astype(np.uint8),
    }
    np.savez(folder / "data.npz", **arrays)
    np.savez(folder / "labelled.npz", labels=np.arange(12) % 3, **arrays)
    np.savez(folder / "other.npz", fact=arrays["facts"], words=arrays["words"])
    np.savez(folder / "half.npz", words=arrays["words"])
    np.savez(folder / "short.npz", words=arrays["words"], facts=arrays["facts"][:5])
    done = call(
        "chip", "convert", f"{folder}/model.py:reader", "--data", folder / "data.npz",
        "--output", folder / "export", "--golden-samples", 2,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


def test_run_feeds_arrays_by_name_and_gives_the_oracles_integers(place: Path, tmp_path: Path):
    program = IntegerProgram.load(place / "export")
    data = np.load(place / "data.npz")
    codes = {
        "words": data["words"].astype(np.int64),
        "facts": program.quantize_input(data["facts"], "facts").numpy(),
    }
    expected = NumpyEngine(program).run(codes)[program.outputs[0]]
    np.savez(tmp_path / "codes.npz", **codes)
    np.save(tmp_path / "words.npy", codes["words"].astype(">i2"))
    np.save(tmp_path / "facts.npy", data["facts"])
    order = [word for name in program.inputs for word in ("--input", tmp_path / f"{name}.npy")]
    for given in (
        ["--input", place / "data.npz"],
        ["--input", place / "labelled.npz"],
        ["--input", tmp_path / "codes.npz"],
        order,
    ):
        done = call("chip", "run", place / "export", *given, "--output", tmp_path / "y.npy")
        assert done.exit_code == 0, done.output
        assert np.array_equal(np.load(tmp_path / "y.npy"), expected)


def test_verify_takes_arrays_by_name_with_labels_and_dictionaries(place: Path, tmp_path: Path):
    report = tmp_path / "report.json"
    for data in (place / "labelled.npz", f"{place}/model.py:arrays"):
        done = call(
            "chip", "verify", f"{place}/model.py:reader", place / "export", "--data", data,
            "--samples", 6, "--json", report,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        labelled = json.loads(report.read_text())["labelled"]
        assert labelled == (data == place / "labelled.npz")


@pytest.mark.parametrize("command", ["tune", "train", "search"])
def test_other_commands_take_arrays_by_name(place: Path, tmp_path: Path, command: str):
    options = {
        "tune": ["--data", place / "data.npz", "--recipe", "w8a8", "--iterations", 1],
        "train": [
            "--data", place / "labelled.npz", "--recipe", "w4a4-lsq", "--epochs", 1,
            "--batch-size", 6, "--device", "cpu",
        ],
        "search": ["--data", place / "data.npz", "--calibration-samples", 4,
                   "--as-uniform", 4, "--widths", "4,8"],
    }  # fmt: skip
    model = f"{place}/model.py:reader"
    done = call("chip", command, model, *options[command], "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    if command != "search":
        assert IntegerProgram.load(tmp_path / "out").inputs == ("words", "facts")


@pytest.mark.parametrize(
    ("name", "message"), [("other", "'fact"), ("half", "'facts'"), ("short", "5")]
)
def test_wrong_and_missing_names_are_refused_by_name(
    place: Path, tmp_path: Path, name: str, message: str
):
    data = place / f"{name}.npz"
    model = f"{place}/model.py:reader"
    for arguments in (
        ["convert", model, "--data", data, "--output", tmp_path / "out"],
        ["verify", model, place / "export", "--data", data],
        ["run", place / "export", "--input", data, "--output", tmp_path / "y.npy"],
    ):
        done = call("chip", *arguments)
        assert done.exit_code == 2, done.output
        assert message in said(done) or "2 inputs (words, facts)" in said(done)
    assert not list(tmp_path.iterdir())


def test_inputs_by_name_and_inputs_in_order_do_not_mix(place: Path, tmp_path: Path):
    np.save(tmp_path / "x.npy", np.zeros((12, 5)))
    both = ["--input", place / "data.npz", "--input", tmp_path / "x.npy"]
    done = call("chip", "run", place / "export", *both, "--output", tmp_path / "y.npy")
    assert done.exit_code == 2
    assert "the only file" in said(done)
    more = ["--input", tmp_path / "x.npy"] * 3
    done = call("chip", "run", place / "export", *more, "--output", tmp_path / "y.npy")
    assert done.exit_code == 2
    assert "got 3 array(s)" in said(done)


def test_one_array_of_integers_feeds_a_model_of_words(place: Path, tmp_path: Path):
    done = call(
        "chip", "convert", f"{place}/model.py:Words", "--data", place / "half.npz",
        "--output", tmp_path / "export",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    data = place / "half.npz"
    arguments = ["--input", data, "--output", tmp_path / "y.npy"]
    assert call("chip", "run", tmp_path / "export", *arguments).exit_code == 0
    program = IntegerProgram.load(tmp_path / "export")
    words = torch.from_numpy(np.load(data)["words"].astype(np.int64))
    expected = NumpyEngine(program).run(words)[program.outputs[0]]
    assert np.array_equal(np.load(tmp_path / "y.npy"), expected)
