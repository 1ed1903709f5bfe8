"""Requantization equals `round_shift` on Python integers, in every arithmetic it may pick."""

import numpy as np
import pytest
import torch

from photomask.chip.arithmetic import carrier, round_shift
from photomask.chip.formats import Interval
from photomask.chip.operators import Requantize, blocks
from photomask.chip.target import Rounding

CPU = torch.device("cpu")
INT40 = {"low": -(1 << 39), "high": (1 << 39) - 1}


def rescale(operator: Requantize, x: np.ndarray, multiplier, shift) -> torch.Tensor:
    parameters = {"multiplier": np.asarray(multiplier), "shift": np.asarray(shift)}
    interval = Interval(int(x.min()), int(x.max()))
    operator.output_interval([interval], parameters)
    expected = operator.run_numpy([x], parameters)
    function = operator.compile_torch([interval], parameters, CPU)
    result = function(torch.from_numpy(x.copy()).to(carrier(interval)))
    assert np.array_equal(result.to(torch.int64).numpy(), expected)
    return result


def make(rounding: Rounding, low: int = -128, high: int = 127, **changes: int) -> Requantize:
    return Requantize(
        rounding=rounding, **({"offset": 0, "zero_point": 0} | changes), low=low, high=high
    )


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("shift", [0, 1, 2, 24, 30, 31, 32, 33, 47, 62])
@pytest.mark.parametrize("bits", [1, 8, 16, 24, 31])
def test_equals_round_shift_with_planted_ties(rounding: Rounding, shift: int, bits: int):
    rng = np.random.default_rng(shift * 64 + bits)
    multipliers = np.array([1, (1 << bits) - 1, 1 << (bits - 1)])
    x = [rng.integers(-width, width, 40) for width in (8, 1 << 16, 1 << 24, 1 << 31)]
    if bits <= shift <= 31:
        # With the multiplier 2**(bits - 1) these products are odd multiples of one half.
        x.append((2 * np.arange(-20, 20) + 1) << (shift - bits))
    x = np.broadcast_to(np.clip(np.concatenate(x), -(1 << 31), 1 << 31), (1, 3, len(x) * 40))
    operator = make(rounding, **INT40)
    result = rescale(operator, x, multipliers.reshape(3, 1), np.full((3, 1), shift))
    for row, multiplier in enumerate(multipliers.tolist()):
        expected = [
            max(operator.low, min(operator.high, round_shift(v * multiplier, shift, rounding)))
            for v in x[0, row].tolist()
        ]
        assert result[0, row].tolist() == expected


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("widths", [(5, 6), (17, 16), (24, 31)])
@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "three_axes", "transposed"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_blocks_change_nothing(rounding, widths, layout, per_channel, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 500)
    rng = np.random.default_rng(0)
    x = rng.integers(-(1 << widths[0]), 1 << widths[0], (3, 7, 11, 13))
    if layout == "three_axes":
        x = x.reshape(3, 7, -1)
    shape = (7, *(1,) * (x.ndim - 2)) if per_channel else (1,)
    parameters = {
        "multiplier": rng.integers(1 << (widths[1] - 1), 1 << widths[1], shape),
        "shift": np.full(shape, sum(widths) - 8),
    }
    interval = Interval(-(1 << widths[0]), 1 << widths[0])
    operator = make(rounding, offset=3, zero_point=-7)
    carried = torch.from_numpy(x).to(carrier(interval))
    if layout == "channels_last":
        carried = carried.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        carried = carried.transpose(2, 3).contiguous().transpose(2, 3)
    result = operator.compile_torch([interval], parameters, CPU)(carried)
    assert np.array_equal(result.numpy(), operator.run_numpy([x], parameters))
    with torch.inference_mode():
        assert torch.equal(operator.compile_torch([interval], parameters, CPU)(carried), result)


@pytest.mark.parametrize("rounding", Rounding)
def test_a_real_block_size_is_exercised(rounding: Rounding):
    rng = np.random.default_rng(1)
    x = rng.integers(-(1 << 20), 1 << 20, (2, 33, 40, 41))
    multiplier = rng.integers(1 << 15, 1 << 16, (33, 1, 1))
    rescale(make(rounding, zero_point=3), x, multiplier, np.full((33, 1, 1), 29))


@pytest.mark.parametrize("rounding", Rounding)
def test_a_dead_channel_does_not_change_the_others(rounding: Rounding):
    x = np.random.default_rng(2).integers(-(1 << 24), 1 << 24, (1, 2, 50))
    rescale(make(rounding, zero_point=128, low=0, high=255), x, [[1], [65535]], [[62], [31]])


def test_a_multiplier_of_the_last_axis_is_not_taken_for_one_of_the_channels():
    x = np.random.default_rng(3).integers(-999, 999, (1, 5, 4, 5))
    rescale(make(Rounding.HALF_UP), x, [1, 2, 3, 4, 5], [4, 5, 6, 7, 8])


@pytest.mark.parametrize(
    ("multiplier", "shift", "problem"),
    [
        ([-1], [3], "negative"),
        ([1], [63], "between 0 and 62"),
        ([1], [-1], "between 0 and 62"),
        ([1 << 31], [1], "63 bits"),
    ],
)
def test_what_would_overflow_is_refused(multiplier, shift, problem):
    parameters = {"multiplier": np.array(multiplier), "shift": np.array(shift)}
    with pytest.raises(ValueError, match=problem):
        make(Rounding.HALF_UP).output_interval([Interval(0, 1 << 32)], parameters)


def test_limits_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="above"):
        make(Rounding.HALF_UP, low=3, high=2)
