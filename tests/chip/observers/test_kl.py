import math

import numpy as np
import pytest
import torch

from photomask.chip.formats import IntFormat
from photomask.chip.observers import KL, Grid

SYMMETRIC = Grid(IntFormat(bits=8, signed=True), symmetric=True)


def observe(x: torch.Tensor, grid: Grid) -> tuple[float, float]:
    observer = KL()
    observer.observe(x.reshape(1, -1))
    low, high = observer.range(grid)
    return low.item(), high.item()


def divergence(counts: list[int], levels: list[int], outside: int) -> float:
    """KL by hand: `levels[i]` is the code of bin `i`; `outside` is added to the last bin."""
    mass, members = {}, {}
    for count, level in zip(counts, levels, strict=True):
        mass[level] = mass.get(level, 0) + count
        members[level] = members.get(level, 0) + (count > 0)
    p = list(counts)
    p[-1] += outside
    q = [mass[lv] / members[lv] if c else 0 for c, lv in zip(counts, levels, strict=True)]
    total_p, total_q = sum(p), sum(q)
    return sum(
        a / total_p * math.log((a / total_p) / max(b / total_q, 1e-9))
        for a, b in zip(p, q, strict=True)
        if a
    )


def test_a_bell_with_far_outliers_is_clipped_between_them():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, generator=generator)
    x[:5] = torch.tensor([30.0, -30.0, 28.0, 29.0, -31.0])
    _, high = observe(x, SYMMETRIC)
    assert 2.5 < high < 15


def test_uniform_data_are_not_clipped():
    x = torch.rand(200_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    _, high = observe(x, SYMMETRIC)
    assert high > 0.95


def test_sixteen_bits_are_min_max():
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    grid = Grid(IntFormat(bits=16, signed=True), symmetric=True)
    assert observe(x, grid) == (x.min().item(), x.max().item())


def test_zeros_of_relu_do_not_decide():
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    grid = Grid(IntFormat(bits=8, signed=False), symmetric=False)
    with_zeros = torch.cat([x, torch.zeros(1_000_000)])
    assert observe(with_zeros, grid)[1] == pytest.approx(observe(x, grid)[1], rel=0.1)


def test_the_threshold_is_where_the_divergence_by_hand_is_least():
    grid = Grid(IntFormat(bits=4, signed=False), symmetric=False)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50_000, generator=generator).abs().clamp(max=6)
    x[0] = 8.0 - 2**-8  # bins are then 2**-9 wide and all 4096 of them in use
    _, high = observe(x, grid)
    width = 2.0**-9
    counts = np.histogram(x.double().numpy(), bins=np.arange(4097) * width)[0]
    counts[0] = counts[1]
    losses = {}
    for step in range(96):
        threshold = x.max().item() * 2 ** (-step / 16)
        bins = int(np.floor(threshold / width - 0.5)) + 1
        if bins < 16:
            break
        scale = np.float32(threshold / 15)
        centers = (np.arange(bins) + 0.5) * width
        levels = np.clip(np.round(centers / scale), 0, 15).astype(int)
        outside = int(counts[bins:].sum())
        losses[threshold] = divergence(counts[:bins].tolist(), levels.tolist(), outside)
    assert high == pytest.approx(min(losses, key=losses.get), rel=1e-5)
