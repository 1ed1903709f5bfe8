import math

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from photomask.chip.formats import IntFormat
from photomask.chip.observers import Grid
from photomask.chip.observers.grid import round_up_to_power_of_two

VALUES = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
BITS = st.integers(2, 16)


def parameters(grid: Grid, low: float, high: float) -> tuple[float, int]:
    low_tensor, high_tensor = torch.tensor([low]), torch.tensor([high])
    scale = grid.scale(low_tensor, high_tensor)
    return scale.item(), int(grid.zero_point(low_tensor, scale).item())


def fake(grid: Grid, scale: float, zero_point: int, x: float) -> float:
    """Plain Python, double precision: what the codes would stand for."""
    code = max(grid.codes.low, min(grid.codes.high, round(x / scale) + zero_point))
    return (code - zero_point) * scale


@given(low=VALUES, high=VALUES, bits=BITS, signed=st.booleans(), power_of_two=st.booleans())
@example(low=3.0, high=3.0, bits=8, signed=False, power_of_two=False)
@example(low=0.0, high=0.0, bits=8, signed=False, power_of_two=False)
@settings(max_examples=200, deadline=None)
def test_affine_grid_holds_zero_and_errs_by_half_a_step(low, high, bits, signed, power_of_two):
    assume(low <= high)
    grid = Grid(IntFormat(bits=bits, signed=signed), False, power_of_two=power_of_two)
    scale, zero_point = parameters(grid, low, high)
    assert scale > 0
    assert grid.codes.low <= zero_point <= grid.codes.high
    assert fake(grid, scale, zero_point, 0.0) == 0.0
    for x in (low, high, (low + high) / 2, low / 3, high / 7):
        if min(low, 0.0) <= x <= max(high, 0.0):
            # Beside the half step: float32 rounded the scale, which counts once a code.
            slack = scale * (0.5 + 2**bits * 2**-23)
            assert abs(fake(grid, scale, zero_point, x) - x) <= slack


@given(low=VALUES, high=VALUES, bits=BITS, narrow=st.booleans(), power_of_two=st.booleans())
@settings(max_examples=200, deadline=None)
def test_symmetric_grid_covers_the_range_with_zero_point_zero(
    low, high, bits, narrow, power_of_two
):
    assume(low <= high)
    grid = Grid(IntFormat(bits=bits, signed=True), True, narrow, power_of_two)
    scale, zero_point = parameters(grid, low, high)
    assert zero_point == 0
    for x in (low, high):
        assert abs(fake(grid, scale, 0, x) - x) <= scale * (0.5 + 2**bits * 2**-23)


@given(st.floats(2.0**-100, 2.0**100, width=32))
@example(0.5)
@example(1.0)
@example(3.0)
def test_power_of_two_is_the_smallest_not_below(value):
    rounded = round_up_to_power_of_two(torch.tensor(value)).item()
    assert math.frexp(rounded)[0] == 0.5
    assert rounded / 2 < value <= rounded


@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "low", "high"),
    [(8, True, True, -127, 127), (8, True, False, -128, 127), (4, False, False, 0, 15)],
)
def test_codes_in_use(bits, signed, narrow, low, high):
    codes = Grid(IntFormat(bits=bits, signed=signed), True, narrow).codes
    assert (codes.low, codes.high) == (low, high)


def test_most_negative_code_is_used_for_one_sided_data():
    grid = Grid(IntFormat(bits=8, signed=True), True)
    assert parameters(grid, -128.0, 10.0)[0] == 1.0
    assert parameters(grid, -128.0, 254.0)[0] == 2.0


def test_a_range_of_nothing_but_zero_has_scale_one():
    for symmetric in (True, False):
        grid = Grid(IntFormat(bits=8, signed=False), symmetric)
        assert parameters(grid, 0.0, 0.0) == (1.0, 0)


def test_tiny_and_huge_ranges_have_usable_scales():
    for bits in (2, 16):
        for power_of_two in (True, False):
            grid = Grid(IntFormat(bits=bits, signed=True), True, power_of_two=power_of_two)
            assert 0 < parameters(grid, 0.0, 1e-44)[0] < 1e-37
            assert math.isfinite(parameters(grid, 0.0, 3.4e38)[0])
