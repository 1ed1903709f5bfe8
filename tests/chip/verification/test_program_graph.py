import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks.random_program.programs import random_program
from torch import Tensor, nn

from photomask.chip import IntegerProgram, Report, verify, write_html
from photomask.chip.verification.program_graph import draw_program
from photomask.chip.verification.program_lanes import Row, assign_lanes
from photomask.chip.verification.step_section import STEPS_TITLE


@pytest.fixture(scope="module")
def report(small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor) -> Report:
    return verify(
        small_network, small_program, small_images, oracle_samples=1, accelerator="reference"
    )


@pytest.mark.parametrize("seed", range(30))
def test_no_two_edges_share_a_lane_while_they_run(seed: int):
    program = random_program(seed)
    rows = [Row(name, (), name) for name in program.inputs]
    rows += [Row(step.name, step.inputs, step.output) for step in program.steps]
    lanes = assign_lanes(rows)
    taken: set[tuple[int, int]] = set()
    for line, row in zip(lanes.lines, rows, strict=True):
        assert line.edge == row.output
        assert line.lane == lanes.nodes[line.start]
        readers = [number for number, each in enumerate(rows) if line.edge in each.inputs]
        assert line.readers == tuple(readers)
        cells = {(line.lane, row) for row in range(line.start + 1, (readers or [0])[-1])}
        assert not taken & cells
        taken |= cells
        # No node stands on an edge that passes by.
        assert all(lanes.nodes[row] != lane for lane, row in cells)


def test_a_chain_is_a_straight_line():
    rows = [
        Row("x", (), "x"),
        *(Row(f"s{n}", (f"s{n - 1}" if n else "x",), f"s{n}") for n in range(5)),
    ]
    assert assign_lanes(rows).nodes == (0,) * 6


def test_every_step_has_a_row_that_leads_to_its_numbers(report: Report, tmp_path: Path):
    write_html(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = set(re.findall(r'<tr id="([^"]+)"', text))
    outputs = [output.name for output in report.outputs]
    svg = draw_program(STEPS_TITLE, report.inputs, report.steps, outputs)
    links = re.findall(r'<a href="#([^"]+)"', svg)
    assert len(links) == len(report.steps)
    assert set(links) <= rows
    assert svg in text


def test_a_row_shows_widths_noise_and_cycles(report: Report):
    outputs = [output.name for output in report.outputs]
    root = ElementTree.fromstring(draw_program(STEPS_TITLE, report.inputs, report.steps, outputs))
    links = root.findall("a")
    for step, link in zip(report.steps, links, strict=True):
        shown = [text.text or "" for text in link.iter("text")]
        hint = link.findtext("title") or ""
        assert step.operator in shown
        assert any(text.endswith(f"→ {step.output.format}") for text in shown)
        assert f"{step.output.low} to {step.output.high}" in hint
        if step.sqnr_db is not None:
            assert f"{step.sqnr_db:.1f}" in shown
        if step.cycles:
            assert f"{step.cycles:,} cycles" in hint
    colours = set(re.findall(r"#[0-9a-f]{3,6}\b", ElementTree.tostring(root, "unicode")))
    assert not colours
