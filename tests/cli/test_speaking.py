"""How much a command says: results alone, what is done, or every detail."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from photomask.cli import app

MODEL = """
import torch
from torch import nn


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
"""


@pytest.fixture
def convert(tmp_path: Path) -> Any:
    """Returns what converts a small model, with more options."""
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    np.save(tmp_path / "x.npy", np.random.default_rng(2).normal(size=(6, 1, 4, 4)))
    line = ["chip", "convert", f"{tmp_path}/model.py:net", "--data", f"{tmp_path}/x.npy"]

    def run(*options: str) -> Any:
        done = CliRunner().invoke(app, [*line, "--output", f"{tmp_path}/out", *options])
        assert done.exit_code == 0, done.output
        return done

    return run


STAGES = ("prepare", "capture", "calibrate", "convert", "export")


def test_results_and_where_they_are_is_what_a_command_says(convert: Any):
    done = convert()
    assert "convolution" in done.stdout
    assert done.stderr.startswith("written to ")
    assert "INFO" not in done.stderr


def test_quiet_leaves_the_results_alone(convert: Any):
    assert (convert("--quiet").stderr, convert("-q").stdout) == ("", convert().stdout)


def test_verbose_tells_the_stages_with_their_durations(convert: Any):
    said = convert("--verbose").stderr
    for stage in STAGES:
        assert re.search(rf"^INFO photomask\.chip[\w.]*: {stage}: done in \d+\.\d\d s$", said, re.M)
    assert "DEBUG" not in said


def test_twice_verbose_tells_passes_and_scales(convert: Any):
    said = convert("-vv").stderr
    assert "DEBUG photomask.chip.graph.passes: pass fold_into_layer: 5 nodes became 4" in said
    assert re.search(r"DEBUG photomask\.chip\.calibration: weight of \S+: scales from ", said)


def test_nothing_of_it_stays_behind(convert: Any):
    logger = logging.getLogger("photomask")
    before = logger.level, list(logger.handlers)
    convert("-vv")
    assert (logger.level, list(logger.handlers)) == before


def test_an_error_is_shown_in_any_case():
    done = CliRunner().invoke(app, ["chip", "show", "nowhere", "--quiet"])
    assert (done.exit_code, done.stderr) == (2, "error: no folder nowhere\n")


def test_before_the_command_it_is_refused_with_the_right_place():
    done = CliRunner().invoke(app, ["--quiet", "chip", "show", "nowhere"])
    assert done.exit_code == 2
    assert "--quiet stands behind the command" in " ".join(done.output.split())
