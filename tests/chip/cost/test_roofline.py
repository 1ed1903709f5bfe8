import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip.cost.accelerator import PRESETS
from photomask.chip.cost.estimates import HardwareReport, estimate
from photomask.chip.cost.roofline import (
    SMALLEST_GAP,
    _spread,
    hardware_figures,
    products_of,
    shortened,
)
from photomask.chip.formats import IntFormat


@pytest.fixture(scope="module")
def report() -> HardwareReport:
    return estimate(small_program()[0], PRESETS["reference"])


def test_there_is_a_picture_of_each_kind(report: HardwareReport):
    figures = hardware_figures(report)
    assert list(figures) == ["roofline", "utilization"]
    for name, draw in figures.items():
        svg = draw()
        assert svg.startswith("<svg")
        assert f'id="{name}-' in svg
        assert "#0" not in re.sub(r'"#\w+-', "", svg), "every colour is the page's"
        for step in products_of(report):
            assert shortened(step.step, 28) in svg


def test_no_layer_lies_above_the_roof(report: HardwareReport):
    machine = report.accelerator
    for step in products_of(report):
        macs = step.costs.multiply_accumulates
        speed = macs / step.costs.cycles.total
        assert speed <= machine.cells
        assert speed <= machine.memory_bytes_per_cycle * macs / step.costs.external.total


def test_layers_at_one_point_share_a_name():
    make = ProgramBuilder()
    names = [make.input("x", (1, 4, 6, 6))]
    for layer in ("first", "second", "third"):
        sums = make.convolution(f"{layer}.accumulator", names[-1], 4)
        names.append(make.requantize(layer, sums, IntFormat(bits=8, signed=True)))
    svg = hardware_figures(estimate(make.build(names[-1]), PRESETS["reference"]))["roofline"]()
    assert "first and 2 more" in svg
    assert "second" not in svg


def test_a_program_without_products_has_no_pictures():
    make = ProgramBuilder()
    x = make.input("x", (1, 4))
    program = make.build(make.requantize("y", x, IntFormat(bits=4, signed=True)))
    assert hardware_figures(estimate(program, PRESETS["reference"])) == {}


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9))
def test_names_keep_their_distance_and_their_order(heights: list[float]):
    placed = _spread(np.array(sorted(heights, reverse=True)), SMALLEST_GAP)
    assert (np.diff(placed) <= -SMALLEST_GAP + 1e-9).all()
    assert placed.mean() == pytest.approx(np.mean(heights))
