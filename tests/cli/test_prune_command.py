import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from photomask.chip import IntegerProgram
from photomask.chip.operators import Convolution, Linear
from photomask.chip.operators.weights import effective_weight
from photomask.chip.sparsity import NofM
from photomask.cli import app

MODEL = """
import torch
from torch import nn


def net():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prune")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    np.save(folder / "images.npy", images.numpy())
    np.save(folder / "labels.npy", np.arange(40) % 4)
    return folder


def prune(place: Path, output: Path, *more: object) -> Result:
    arguments = [
        "chip", "prune", f"{place}/model.py:net", "--data", place / "images.npy", "--device",
        "cpu", "--output", output, *more,
    ]  # fmt: skip
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    program = IntegerProgram.load(folder)
    return {
        step.node: effective_weight(program.parameters(step))
        for step in program.steps
        if isinstance(step.operator, (Convolution, Linear))
    }


def test_a_pattern_is_kept_by_the_exported_integers(place: Path, tmp_path: Path):
    report = tmp_path / "report.json"
    done = prune(place, tmp_path / "out", "--pattern", "2:4", "--json", report)
    assert done.exit_code == 0, done.output
    found = weights_of(tmp_path / "out")
    pattern = NofM(kept=2, group=4)
    assert set(found) == {"0", "3", "7"}
    assert all(pattern.holds(weight) for weight in found.values())
    rows = {row["layer"]: row for row in json.loads(report.read_text())["layers"]}
    assert rows["0"]["reason"] == "each of its outputs reads one input channel"
    assert rows["7"]["pruned"] == 16


def test_weights_are_pruned_while_they_train(place: Path, tmp_path: Path):
    schedule = ["--epochs", 2, "--batch-size", 8, "--labels", place / "labels.npy"]
    done = prune(
        place, tmp_path / "out", "--method", "granet", "--sparsity", 0.75, *schedule,
        "--batch-norms", "--recipe", "w4a4-lsq",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = weights_of(tmp_path / "out")
    zeros = sum(int((found[name] == 0).sum()) for name in ("3", "7"))
    assert zeros >= 0.75 * (found["3"].size + found["7"].size) - 1


def test_channels_leave_and_the_rest_is_exported(place: Path, tmp_path: Path):
    done = prune(place, tmp_path / "out", "--channels", 0.5)
    assert done.exit_code == 0, done.output
    found = weights_of(tmp_path / "out")
    assert [found[name].shape[0] for name in ("0", "3", "7")] == [4, 4, 4]
    assert found["3"].shape[1] == 4


def test_gradients_come_from_the_labels(place: Path, tmp_path: Path):
    done = prune(place, tmp_path / "out", "--method", "snip")
    assert done.exit_code == 2
    assert "needs labels" in done.output
    assert not (tmp_path / "out").exists()
    done = prune(place, tmp_path / "out", "--method", "snip", "--labels", place / "labels.npy")
    assert done.exit_code == 0, done.output


def test_a_layer_that_the_pattern_does_not_fit_is_named(place: Path, tmp_path: Path):
    done = prune(place, tmp_path / "out", "--pattern", "2:4", "--layer", "0")
    assert done.exit_code == 2
    assert "cannot be pruned: each of its outputs reads one input channel" in done.output
