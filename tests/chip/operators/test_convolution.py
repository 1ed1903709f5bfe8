"""Accumulators at the edge of each arithmetic, where one lost bit would show."""

import numpy as np
import pytest
import torch

from photomask.chip.arithmetic import carrier
from photomask.chip.engines.torch_engine import exact_arithmetic
from photomask.chip.formats import Interval
from photomask.chip.operators import Convolution, Linear
from photomask.chip.operators.convolution import input_pieces

CPU = torch.device("cpu")


def same(operator, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, interval: Interval) -> None:
    parameters = {"weight": weight, "bias": bias}
    fast = operator.compile_torch([interval], parameters, CPU)(
        torch.from_numpy(x).to(carrier(interval))
    )
    assert np.array_equal(fast.to(torch.int64).numpy(), operator.run_numpy([x], parameters))


def convolution(rank: int = 2, groups: int = 1, **changes) -> Convolution:
    attributes = {
        "stride": (1,) * rank,
        "padding": ((1, 1),) * rank,
        "dilation": (1,) * rank,
        "groups": groups,
        "padding_value": 0,
    }
    return Convolution(**(attributes | changes))


def extremes(shape: tuple[int, ...], low: int, high: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice([low, low + 1, high - 1, high], shape)


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("channels", [28, 57, 64, 230])
def test_extreme_operands_near_two_to_the_24th_and_beyond(channels: int, batch: int):
    # 57 * 9 * 255 * 128 is the last below 2**24: one float32 pass; more channels go in pieces.
    x = extremes((batch, channels, 9, 9), 0, 255, channels)
    weight = extremes((3, channels, 3, 3), -128, 127, batch)
    same(convolution(), x, weight, np.array([1, -1, 77]), Interval(0, 255))
    worst = np.full_like(weight, -128)
    same(convolution(), np.full_like(x, 255), worst, np.array([-1, 0, 1]), Interval(0, 255))


def test_sixteen_bit_operands_near_two_to_the_31st_and_beyond():
    x = extremes((2, 6, 8, 8), -32768, 32767, 0)
    weight = extremes((4, 6, 3, 3), -32768, 32767, 1)
    same(convolution(), x, weight, np.arange(4), Interval(-32768, 32767))
    same(convolution(groups=2), x, weight[:, :3], np.arange(4), Interval(-32768, 32767))


def test_sums_beyond_float64_are_exact():
    x = extremes((1, 2, 4, 4), -(1 << 35), (1 << 35) - 1, 0)
    weight = extremes((2, 2, 3, 3), -(1 << 19), (1 << 19) - 1, 1)
    same(convolution(), x, weight, np.array([1, -1]), Interval(-(1 << 35), (1 << 35) - 1))


@pytest.mark.parametrize("bias", [(1 << 24) + 1, (1 << 31) - 1, -(1 << 40) - 1])
def test_a_bias_wider_than_the_products_keeps_its_last_bit(bias: int):
    x = extremes((2, 2, 5, 5), -128, 127, 0)
    weight = extremes((2, 2, 3, 3), -8, 7, 1)
    same(convolution(), x, weight, np.array([bias, -bias]), Interval(-128, 127))
    same(Linear(), x[:, :, 0, 0], weight[:, :, 0, 0], np.array([bias, 1]), Interval(-128, 127))


@pytest.mark.parametrize("mode", ["medium", "new_settings", "autocast"])
def test_reduced_precision_modes_do_not_reach_the_engine(mode: str):
    onednn = torch.backends.mkldnn
    saved = [
        (m, m.fp32_precision) for m in (onednn.conv, onednn.matmul, torch.backends.cuda.matmul)
    ]
    x = extremes((16, 57, 9, 9), 0, 255, 0)
    weight = extremes((3, 57, 3, 3), -128, 127, 1)
    try:
        if mode == "medium":
            torch.set_float32_matmul_precision("medium")
        if mode == "new_settings":
            onednn.conv.fp32_precision = onednn.matmul.fp32_precision = "bf16"
        before = [m.fp32_precision for m, _ in saved]
        with (
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "autocast"),
            exact_arithmetic("cpu"),
        ):
            same(convolution(), x, weight, np.array([1, 2, 3]), Interval(0, 255))
            same(Linear(), x[:, :, 0, 0], weight[:, :, 0, 0], np.arange(3), Interval(0, 255))
        assert [m.fp32_precision for m, _ in saved] == before
    finally:
        torch.set_float32_matmul_precision("highest")
        for backend, precision in saved:
            backend.fp32_precision = precision


def test_pieces_cover_every_channel_once_and_stay_exact():
    weight = np.full((2, 100, 3, 3), -128)
    pieces = input_pieces(weight, Interval(0, 255))
    assert pieces is not None
    assert [i for piece in pieces for i in range(100)[piece]] == list(range(100))
    assert len(pieces) == 2
    assert input_pieces(np.full((1, 1, 3, 3), 1 << 21), Interval(0, 255)) is None


@pytest.mark.parametrize(
    ("operator", "shape", "weight"),
    [
        (convolution(), (1, 3, 8, 8), (4, 2, 3, 3)),
        (convolution(groups=2), (1, 4, 8, 8), (3, 2, 3, 3)),
        (convolution(rank=1), (1, 4, 8, 8), (4, 4, 3)),
        (convolution(padding=((1, 1),)), (1, 2, 8, 8), (4, 2, 3, 3)),
        (Linear(), (1, 3), (4, 2)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(operator, shape, weight):
    with pytest.raises(ValueError, match=r"weight|argument"):
        operator.output_shape([shape], {"weight": np.ones(weight, dtype=np.int64)})


@pytest.mark.parametrize(
    "change",
    [
        {"bias": np.zeros(3, dtype=np.int64)},
        {"weight_zero_point": np.zeros(1, dtype=np.int64)},
        {"group_multiplier": np.ones((1, 2), dtype=np.int64)},
        {"group_multiplier": np.full((4, 2), 1 << 62)},
    ],
)
def test_parameters_that_do_not_fit_are_refused(change):
    parameters = {"weight": np.full((4, 2, 3, 3), 7), "bias": np.zeros(4, dtype=np.int64)} | change
    with pytest.raises(ValueError, match=r"one|63 bits"):
        convolution().output_interval([Interval(0, 255)], parameters)


def test_an_interval_beyond_int64_is_computed_without_overflow():
    parameters = {"weight": np.full((1, 4, 3, 3), 1 << 40), "bias": np.array([0])}
    interval = convolution().output_interval([Interval(0, 1 << 40)], parameters)
    assert interval.high == 36 << 80
