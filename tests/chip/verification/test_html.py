import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    Report,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
    verify,
    write_html,
)

PICTURES = (
    "Signal and noise",
    "Weights",
    "Activations",
    "Accumulators",
    "What a multiplier of k bits costs",
    "The program as a graph",
    "Channels",
    "Worst samples",
)


@pytest.fixture(scope="module")
def report(small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor) -> Report:
    return verify(small_network, small_program, small_images, oracle_samples=1)


def test_the_page_is_self_contained_and_has_every_picture(report: Report, tmp_path: Path):
    write_html(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r'(src|href)="(?!#|data:image/png;base64,)', text)
    for name in PICTURES:
        assert f'aria-label="{name}"' in text
    assert text.count("<svg") == len(PICTURES)
    assert text.index("PASSED") < text.index("<table")
    for layer in report.layers:
        assert layer.node in text


def test_a_failed_report_says_so_first(report: Report, tmp_path: Path):
    check = report.checks[0].model_copy(update={"value": 3.0})
    failed = report.model_copy(update={"checks": (check, *report.checks[1:])})
    write_html(failed, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.index("FAILED: 4 of 5 checks") < text.index("engine mismatches: 3, must be")
    assert '<main class="judged failed">' in text


def test_a_program_without_weights_or_multipliers_has_a_page(tmp_path: Path):
    class Shifts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x).flatten(1)

    images = torch.randn(4, 1, 4, 4)
    prepared = prepare(Shifts(), load_recipe("w8a8-po2"), images[:1])
    calibrate(prepared, images)
    program = convert(prepared, load_target("max78000"))
    report = verify(Shifts(), program, images)
    write_html(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert report.multipliers is None
    assert "PASSED" in text
