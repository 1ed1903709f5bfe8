import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from photomask.chip import IntegerProgram
from photomask.cli import app

MODEL = """
import torch
from torch import nn


def net():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    np.save(folder / "images.npy", images.numpy())
    np.save(folder / "labels.npy", np.arange(40) % 3)
    return folder


def train(place: Path, *more: object) -> Result:
    arguments = [
        "chip", "train", f"{place}/model.py:net", "--data", place / "images.npy",
        "--batch-size", 8, "--device", "cpu", *more,
    ]  # fmt: skip
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_train_writes_program_weights_report_and_checkpoint(place: Path, tmp_path: Path):
    done = train(
        place, "--labels", place / "labels.npy", "--epochs", 2, "--recipe", "w4a4-lsq",
        "--batch-norms", "--output", tmp_path / "export", "--save-weights", tmp_path / "weights",
        "--json", tmp_path / "report.json", "--checkpoint", tmp_path / "run",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "least bits" in done.stdout
    program = IntegerProgram.load(tmp_path / "export")
    report = json.loads((tmp_path / "report.json").read_text())
    assert [record["epoch"] for record in report["epochs"]] == [0, 1]
    assert report["settings"]["batch_size"] == 8
    assert (tmp_path / "weights" / "model.safetensors").is_file()
    again = train(
        place, "--labels", place / "labels.npy", "--epochs", 2, "--recipe", "w4a4-lsq",
        "--batch-norms", "--output", tmp_path / "again", "--checkpoint", tmp_path / "run",
        "--resume",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    assert IntegerProgram.load(tmp_path / "again").content_hash() == program.content_hash()


def test_without_labels_the_model_itself_teaches(place: Path, tmp_path: Path):
    settings = tmp_path / "schedule.json"
    settings.write_text(json.dumps({"epochs": 5, "distillation": 1.0, "optimizer": "adamw"}))
    done = train(place, "--settings", settings, "--epochs", 1, "--output", tmp_path / "export")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n0 ") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--learning-rate", "-1"], "--learning-rate takes a number above 0"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--resume"], "name its folder by --checkpoint"),
        (["--batch-size", "64"], "fewer than a batch of 64"),
        (["--recipe", "w9"], "neither a recipe preset"),
    ],
)
def test_what_cannot_be_trained_is_a_usage_error(
    place: Path, tmp_path: Path, more: list[str], message: str
):
    done = train(place, "--output", tmp_path / "export", *more)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "export").exists()


def test_a_folder_for_training_is_told_how_to_state_its_pixels(place: Path, tmp_path: Path):
    (tmp_path / "cat").mkdir()
    done = train(place, "--data", tmp_path, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert "preprocessing.json" in done.output
