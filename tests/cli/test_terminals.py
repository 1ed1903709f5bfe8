"""Terminals that cannot show every character: tables and reports are still printed."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from photomask.cli import main

MODEL = """
import torch
from torch import nn


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
"""
ENCODINGS = ["cp1252", "latin-1", "ascii", "utf-8"]


def run(monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: object) -> tuple[int, str]:
    """Runs a command on a terminal of an encoding, and returns its exit status and all it wrote."""
    raw = [io.BytesIO(), io.BytesIO()]
    for name, buffer in zip(("stdout", "stderr"), raw, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding=encoding))
    monkeypatch.setattr(sys, "argv", ["photomask", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    sys.stdout.flush()
    sys.stderr.flush()
    status = ended.value.code
    assert isinstance(status, int)
    # Click takes an ASCII terminal for one that is configured wrongly, and writes UTF-8 to it.
    found = "utf-8" if encoding == "ascii" else encoding
    return status, "".join(buffer.getvalue().decode(found) for buffer in raw)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, whose name no small encoding has, with an export and its data."""
    folder = tmp_path_factory.mktemp("модель→")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    images = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    np.save(folder / "images.npy", images.numpy())
    with pytest.MonkeyPatch.context() as patch:
        status, said = run(
            patch, "ascii", "chip", "convert", f"{folder}/model.py:net",
            "--data", folder / "images.npy", "--output", folder / "export",
        )  # fmt: skip
    assert status == 0, said
    return folder


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_and_reports_are_printed(
    place: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
):
    export, model = place / "export", f"{place}/model.py:net"
    for command, word in (
        (["show", export], "proven"),
        (["estimate", export], "cycles"),
        (["check", export, export / "golden"], "rounding not proven"),
        (["verify", model, export, "--data", place / "images.npy"], "PASSED"),
        (["export", export, "--format", "c", "--output", place / encoding], "written to"),
    ):
        status, said = run(monkeypatch, encoding, "chip", *command)
        assert status == 0, said
        assert word in said
        assert "Traceback" not in said


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_help_and_errors_are_printed_and_are_no_failed_check(
    place: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
):
    for command in ([], ["chip"], ["chip", "convert"], ["attention"], ["demo", "chip"]):
        status, said = run(monkeypatch, encoding, *command, "--help")
        assert status == 0
        assert "Usage" in said
    for command in (
        ["show", place / "нет→"],
        ["run", place / "export", "--input", place / "нет.npy", "--output", place / "y.npy"],
        ["verify", "сеть→", place / "export", "--data", place / "images.npy"],
        ["show", "--нет→"],
        ["нет→"],
    ):
        status, said = run(monkeypatch, encoding, "chip", *command)
        assert status == 2, said
        assert "Traceback" not in said


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_check_that_failed_is_told_from_all_else(
    place: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
):
    (place / f"empty→{encoding}").mkdir()
    status, said = run(
        monkeypatch, encoding, "chip", "check", place / "export", place / f"empty→{encoding}"
    )
    assert status == 1
    assert "FAILED" in said
    assert "Traceback" not in said
