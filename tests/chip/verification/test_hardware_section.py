import re
from pathlib import Path

import pytest
from torch import Tensor, nn

from photomask.chip import IntegerProgram, Report, verify, write_html
from photomask.chip.cost.accelerator import PRESETS
from photomask.chip.cost.estimates import HardwareReport, estimate
from photomask.chip.verification.hardware_section import hardware_sections
from photomask.errors import UsageError


@pytest.fixture(scope="module")
def report(small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor) -> Report:
    return verify(small_network, small_program, small_images, oracle_samples=1)


@pytest.fixture(scope="module")
def hardware(small_program: IntegerProgram) -> HardwareReport:
    return estimate(small_program, PRESETS["reference"])


def test_the_page_has_the_estimate_behind_what_was_verified(
    report: Report, hardware: HardwareReport, tmp_path: Path
):
    write_html(report, tmp_path / "plain.html")
    write_html(report, tmp_path / "report.html", hardware=hardware)
    plain, text = ((tmp_path / f"{name}.html").read_text() for name in ("plain", "report"))
    assert text.count("<svg") == plain.count("<svg") + 2
    assert "accelerator" not in plain
    assert text.index("What a multiplier of k bits costs") < text.index("accelerator “reference”")
    names = re.findall(r'\sid="([^"]+)"', text)
    assert len(names) == len(set(names))
    assert "://" not in text


def test_every_step_that_takes_time_has_a_row(hardware: HardwareReport):
    table = hardware_sections(hardware)[-1]
    steps = [step for step in hardware.steps if step.costs.cycles.total]
    assert len(table.rows) == len(steps) + 1
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert table.rows[-1][0] == "total"


def test_the_estimate_of_another_program_is_refused(
    report: Report, hardware: HardwareReport, tmp_path: Path
):
    other = hardware.model_copy(update={"program_sha256": "0" * 64})
    with pytest.raises(UsageError, match="estimate the program that was verified"):
        write_html(report, tmp_path / "report.html", hardware=other)
    assert not (tmp_path / "report.html").exists()
