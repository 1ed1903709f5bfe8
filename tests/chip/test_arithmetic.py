"""Rounding equals its definitions; multipliers and shifts keep their error bound."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.chip.operators.brute_force import rounded

from photomask.chip.arithmetic import carrier, fixed_point, round_shift
from photomask.chip.formats import Interval
from photomask.chip.target import PRESETS, Rounding, Target
from photomask.errors import TargetError

ASIC = PRESETS["asic"]


def target(**changes) -> Target:
    return Target.model_validate(ASIC.model_dump() | changes)


@pytest.mark.parametrize("rounding", Rounding)
@given(st.integers(-(1 << 62), 1 << 62), st.integers(0, 62))
def test_round_shift_equals_its_definition_on_fractions(rounding, value: int, shift: int):
    assert round_shift(value, shift, rounding) == rounded(value, shift, rounding)


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        (Rounding.HALF_UP, [-2, -1, 0, 1, 2, 3]),
        (Rounding.HALF_EVEN, [-2, -2, 0, 0, 2, 2]),
        (Rounding.HALF_AWAY, [-3, -2, -1, 1, 2, 3]),
        (Rounding.TRUNCATE, [-3, -2, -1, 0, 1, 2]),
        (Rounding.DOUBLE, [-2, -1, 0, 1, 2, 3]),
    ],
)
def test_ties(rounding: Rounding, expected: list[int]):
    assert [round_shift(value, 1, rounding) for value in (-5, -3, -1, 1, 3, 5)] == expected


def doubling_high_multiply(a: int, b: int) -> int:
    """2ab / 2**32 to nearest, ties away from zero for positive and up for negative products."""
    product = a * b
    nudge = 1 << 30 if product >= 0 else 1 - (1 << 30)
    quotient = Fraction(product + nudge, 1 << 31)
    return int(quotient)


def rounding_divide_by_power_of_two(x: int, exponent: int) -> int:
    """To nearest, ties away from zero."""
    away = (abs(x) + (1 << exponent >> 1)) >> exponent
    return away if x >= 0 else -away


@given(
    st.integers(-(1 << 31), (1 << 31) - 1), st.integers(1 << 30, (1 << 31) - 1), st.integers(0, 31)
)
def test_double_rounding_is_the_two_step_kernel(x: int, multiplier: int, exponent: int):
    """One addition of both halves is the doubling high multiply and rounding division of TFLite."""
    kernel = rounding_divide_by_power_of_two(doubling_high_multiply(x, multiplier), exponent)
    assert round_shift(x * multiplier, 31 + exponent, Rounding.DOUBLE) == kernel


@given(
    st.integers(-(1 << 23), (1 << 23) - 1), st.integers(1 << 30, (1 << 31) - 1), st.integers(0, 8)
)
def test_double_rounding_is_the_kernel_for_ratios_above_one(x: int, multiplier: int, left: int):
    kernel = doubling_high_multiply(x << left, multiplier)
    assert round_shift(x * multiplier, 31 - left, Rounding.DOUBLE) == kernel


@pytest.mark.parametrize("exponent", [0, 1, 4, 8, 16])
def test_double_rounding_is_the_kernel_around_ties(exponent: int):
    for around in range(-9, 10):
        for tie in range(-7, 8):
            x = (2 * tie + 1) * (1 << exponent) + around
            test_double_rounding_is_the_two_step_kernel.hypothesis.inner_test(x, 1 << 30, exponent)


RATIOS = st.floats(2.0**-30, 2.0**15, exclude_max=True)


@given(RATIOS, st.integers(4, 31))
def test_multipliers_keep_the_bound(ratio: float, bits: int):
    hardware = target(multiplier_bits=bits, shift_max=62)
    try:
        point = fixed_point(np.array([ratio]), hardware, "here")
    except TargetError:
        assert ratio >= 2**bits - 1
        return
    multiplier, shift = int(point.multiplier[0]), int(point.shift[0])
    assert 0 <= multiplier < 1 << bits
    assert hardware.shift_min <= shift <= hardware.shift_max
    exact = abs(Fraction(multiplier, 1 << shift) / Fraction(ratio) - 1)
    assert exact <= Fraction(1, 1 << bits)
    assert point.relative_error == pytest.approx(float(exact), abs=2**-50)


@given(st.lists(RATIOS, min_size=2, max_size=5), st.integers(4, 31))
def test_one_shift_for_all_channels(ratios: list[float], bits: int):
    hardware = target(multiplier_bits=bits, shift_max=62, per_channel_shift=False)
    if max(ratios) >= 2**bits - 1:
        return
    point = fixed_point(np.array(ratios), hardware, "here")
    assert len(set(point.shift.tolist())) == 1
    assert point.multiplier.min() >= 0
    assert point.multiplier.max() < 1 << bits
    largest = int(np.argmax(ratios))
    exact = Fraction(int(point.multiplier[largest]), 1 << int(point.shift[largest]))
    assert abs(exact / Fraction(ratios[largest]) - 1) <= Fraction(1, 1 << bits)


def test_a_multiplier_that_rounds_up_to_the_next_power_is_carried():
    point = fixed_point(np.array([1 - 2.0**-30]), target(multiplier_bits=8), "here")
    assert (point.multiplier[0], point.shift[0]) == (128, 7)


def test_a_ratio_below_the_shift_range_loses_bits_and_says_so():
    point = fixed_point(np.array([2.0**-46 * 1.5, 2.0**-80]), target(shift_max=47), "here")
    assert point.multiplier.tolist() == [3, 0]
    assert point.relative_error == 1.0


@pytest.mark.parametrize("ratio", [0.0, -1.0, np.nan, np.inf, 1e-310, 1e300])
def test_impossible_ratios_are_refused_or_vanish(ratio: float):
    if 0 < ratio < 1:
        assert fixed_point(np.array([ratio]), ASIC, "here").multiplier[0] == 0
        return
    with pytest.raises(TargetError, match="here: "):
        fixed_point(np.array([1.0, ratio]), ASIC, "here")


class TestPowerOfTwo:
    hardware = PRESETS["max78000"]

    def test_a_power_of_two_is_a_shift_alone(self):
        point = fixed_point(np.array([0.125, 0.125]), self.hardware, "here")
        assert (point.multiplier.tolist(), point.shift.tolist()) == ([1, 1], [3, 3])
        assert point.relative_error == 0

    def test_other_ratios_are_named(self):
        with pytest.raises(TargetError, match=r"ratio of 0\.3"):
            fixed_point(np.array([0.25, 0.3]), self.hardware, "here")

    def test_channels_that_need_different_shifts_are_refused(self):
        with pytest.raises(TargetError, match=r"2 to 3 \(2 times apart\)"):
            fixed_point(np.array([0.25, 0.125]), self.hardware, "here")

    def test_shifts_outside_the_range_are_refused(self):
        with pytest.raises(TargetError, match="above 47"):
            fixed_point(np.array([2.0**-48]), self.hardware, "here")
        with pytest.raises(TargetError, match="below"):
            fixed_point(np.array([2.0]), self.hardware, "here")

    def test_one_shift_per_channel_where_the_target_has_it(self):
        hardware = Target.model_validate(self.hardware.model_dump() | {"per_channel_shift": True})
        point = fixed_point(np.array([0.25, 1.0]), hardware, "here")
        assert point.shift.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("high", "dtype"),
    [
        (1 << 24, torch.float32),
        ((1 << 24) + 1, torch.float64),
        (1 << 53, torch.float64),
        ((1 << 53) + 1, torch.int64),
    ],
)
def test_carriers_hold_every_integer(high: int, dtype: torch.dtype):
    for interval in (Interval(0, high), Interval(-high, 0)):
        assert carrier(interval) is dtype
    assert int(torch.tensor(high, dtype=dtype)) == high


def test_a_fixed_point_never_changes():
    point = fixed_point(np.array([0.5]), ASIC, "here")
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.relative_error = 0.0  # type: ignore[misc]
