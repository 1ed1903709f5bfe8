import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from photomask import zoo
from photomask.chip import IntegerProgram
from photomask.cli import app

MODEL = """
import torch
from torch import nn


def net(channels=4):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)
    )


def wide():
    return net(8)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    np.save(folder / "images.npy", images.numpy())
    np.save(folder / "labels.npy", np.arange(40) % 3)
    return folder


def run(command: str, model: object, place: Path, *more: object) -> Result:
    arguments = [
        "chip", command, model, "--data", place / "images.npy", "--device", "cpu", *more,
    ]  # fmt: skip
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_pretrain_writes_weights_that_other_commands_take(place: Path, tmp_path: Path):
    network, weights = f"{place}/model.py:net", tmp_path / "net.safetensors"
    schedule = ["--batch-size", 8, "--epochs", 2]
    done = run(
        "pretrain", network, place, *schedule, "--output", weights,
        "--json", tmp_path / "report.json", "--checkpoint", tmp_path / "run",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["recipe"].startswith("BarlowTwins")
    assert [record["epoch"] for record in report["epochs"]] == [0, 1]
    again = tmp_path / "again.safetensors"
    done = run(
        "pretrain", network, place, *schedule, "--output", again,
        "--checkpoint", tmp_path / "run", "--resume",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert again.read_bytes() == weights.read_bytes()
    loaded, plain = zoo.load_model(f"{network}@{weights}"), zoo.load_model(network)
    assert not loaded.training
    assert not torch.equal(loaded[0].weight, plain[0].weight)  # type: ignore[index]
    done = run(
        "train", f"{network}@{weights}", place, "--labels", place / "labels.npy", "--recipe",
        "w8a8", "--batch-size", 8, "--epochs", 1, "--output", tmp_path / "export",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert IntegerProgram.load(tmp_path / "export").steps


def test_a_host_teaches_by_cross_distillation(place: Path, tmp_path: Path):
    done = run(
        "pretrain", f"{place}/model.py:net", place, "--batch-size", 20, "--epochs", 1,
        "--method", "xd", "--host", f"{place}/model.py:wide", "--head", "5",
        "--output", tmp_path / "net.safetensors",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (tmp_path / "net.safetensors").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch-size", 1], "a batch of one sample has no variance"),
        (["--batch-size", 64], "are fewer than a batch of 64"),
        (["--head", "0"], "the head '0' is a Conv2d"),
        (["--method", "vicreg", "--learning-rate", 1e30], "training diverged|collapsed"),
    ],
)
def test_what_cannot_be_pre_trained_leaves_no_file(
    place: Path, tmp_path: Path, more: list[object], message: str
):
    output = tmp_path / "net.safetensors"
    schedule = ["--batch-size", 8, "--epochs", 1]
    done = run("pretrain", f"{place}/model.py:net", place, *schedule, *more, "--output", output)
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert any(part in said for part in message.split("|")), said
    assert not output.exists()


def test_sequences_and_tables_have_no_views(place: Path, tmp_path: Path):
    np.save(tmp_path / "rows.npy", np.zeros((8, 4), np.float32))
    done = run(
        "pretrain", f"{place}/model.py:net", place, "--data", tmp_path / "rows.npy",
        "--output", tmp_path / "net.safetensors",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "holds no images" in done.output
