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
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def with_norm():
    torch.manual_seed(3)
    norm, layer = nn.LayerNorm(64), nn.Linear(64, 3)
    with torch.no_grad():
        norm.weight[5] *= 100
        layer.weight[:, 5] /= 100
    return nn.Sequential(nn.Flatten(), norm, layer)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    np.save(folder / "images.npy", images.numpy())
    return folder


def tune(place: Path, *more: object, model: str = "net") -> Result:
    arguments = [
        "chip", "tune", f"{place}/model.py:{model}", "--data", place / "images.npy",
        "--iterations", 40, *more,
    ]  # fmt: skip
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_tune_writes_program_and_report_and_goes_on_from_its_checkpoint(place, tmp_path):
    results = []
    for name in ("first", "again"):
        done = tune(
            place, "--output", tmp_path / name, "--json", tmp_path / f"{name}.json",
            "--checkpoint", tmp_path / "checkpoint",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert "whole network: " in done.stdout
        results.append(done.stdout)
    assert results[0] == results[1]
    first, again = (IntegerProgram.load(tmp_path / name) for name in ("first", "again"))
    assert first.content_hash() == again.content_hash()
    report = json.loads((tmp_path / "first.json").read_text())
    assert [block["name"] for block in report["blocks"]] == ["0", "3"]
    assert report["samples"] == 40


def test_a_norm_with_one_large_channel_is_smoothed_first(place, tmp_path):
    found = []
    for smooth in ([], ["--smooth", 0.7]):
        done = tune(
            place, "--output", tmp_path / "out", "--json", tmp_path / "report.json", *smooth,
            model="with_norm",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        found.append(json.loads((tmp_path / "report.json").read_text())["sqnr_before_db"])
    assert found[1] > found[0] + 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--recipe", "w5"], "'w5' is neither a recipe preset"),
        (["--calibration-samples", 41], "holds 40 samples, asked for 41"),
        (["--smooth", 0.5], "has no norm that only layers read: leave out --smooth"),
        (["--device", "nonsense"], "no device 'nonsense'"),
        (["--device", "cuda:9"], "no device 'cuda:9'"),
        (["--checkpoint", "{place}"], "is not empty and holds no checkpoint"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(place, tmp_path, more, message):
    more = [str(part).format(place=place) for part in more]
    done = tune(place, "--output", tmp_path / "out", *more)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()
