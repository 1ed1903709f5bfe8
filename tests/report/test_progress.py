"""One thing shows progress in a terminal, in a notebook, and nowhere else."""

import inspect
import io
import os
import pty
import subprocess
import sys

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from torch import nn

from photomask import attention
from photomask.chip import calibrate, compare_with_prepared, prepare, verify
from photomask.chip.equalization import correct_biases, smooth, smooth_products
from photomask.chip.mixed_precision import measure_sensitivity
from photomask.chip.reconstruction import reconstruct
from photomask.chip.training import train
from photomask.chip.weight_rounding import compensate_rounding, scale_salient_channels
from photomask.report import show_progress, without_progress

LONG = [
    calibrate, compare_with_prepared, verify, correct_biases, smooth, smooth_products,
    measure_sensitivity, reconstruct, train, compensate_rounding, scale_salient_channels,
    attention.calibrate, attention.verify,
]  # fmt: skip
SCRIPT = """
from photomask.report import show_progress
print([item for item in show_progress([1, 2, 3], "counting sheep")])
"""


@pytest.mark.parametrize("function", LONG, ids=lambda function: function.__module__)
def test_every_long_function_takes_the_same_progress(function: object):
    parameter = inspect.signature(function).parameters["progress"]  # type: ignore[arg-type]
    assert parameter.kind is parameter.KEYWORD_ONLY
    assert parameter.default is without_progress


def test_where_nobody_watches_nothing_is_shown(monkeypatch: pytest.MonkeyPatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    assert list(show_progress("abc", "spelling")) == ["a", "b", "c"]
    assert said.getvalue() == ""


def test_a_terminal_gets_a_bar():
    parent, child = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=child,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
        text=True,
    )
    os.close(child)
    shown = b""
    try:
        while piece := os.read(parent, 4096):
            shown += piece
    except OSError:  # the terminal has closed
        pass
    os.close(parent)
    printed, _ = done.communicate()
    assert printed == "[1, 2, 3]\n"
    assert b"counting sheep" in shown


def test_a_notebook_gets_a_bar_below_the_cell():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SCRIPT)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    texts = [output.data["text/plain"] for output in outputs if "data" in output]
    assert len(texts) == 1
    assert "counting sheep" in texts[0]
    assert "3/3" in texts[0]
    assert [output.text for output in outputs if "text" in output] == ["[1, 2, 3]\n"]


def test_calibration_walks_as_many_batches_as_there_are():
    torch.manual_seed(0)
    prepared = prepare(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), "w8a8", torch.randn(2, 4))
    seen = []

    def progress(items, label):
        for item in items:
            yield item
            seen.append((item, label))

    for data, steps in [
        (torch.randn(70, 4), 3),
        ([torch.randn(5, 4), torch.randn(6, 4)], 2),
        (iter([torch.randn(5, 4)]), 0),
    ]:
        seen.clear()
        calibrate(prepared, data, progress=progress)
        assert seen == [(step, "calibrating") for step in range(steps)]


def test_a_wrong_length_ends_the_bar_and_no_data():
    class Liar(list):
        def __len__(self) -> int:
            return 1

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    batches = [torch.randn(5, 4), 9 * torch.randn(5, 4)]
    found = []
    for data in (batches, Liar(batches)):
        prepared = prepare(network, "w8a8", batches[0])
        calibrate(prepared, data, progress=lambda items, label: iter(items))
        found.append(str(prepared))
    assert found[0] == found[1]
