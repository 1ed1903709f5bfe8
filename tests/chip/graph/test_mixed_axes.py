"""The axes that an operation says it mixes are those along which its results depend on others."""

import math

import pytest
import torch
from torch import Tensor

from photomask.chip.graph.operations import (
    AdaptiveAveragePool,
    AveragePool,
    Clamp,
    Convolution,
    Linear,
    MaxPool,
    Mean,
    Normalize,
    Operation,
    Pad,
    Softmax,
)

CASES: list[tuple[Operation, dict[str, Tensor]]] = [
    (MaxPool((3, 3), (1, 1), (1, 1), (1, 1), False), {}),
    (AveragePool((2, 2), (1, 1), (0, 0), False, True, None), {}),
    (AdaptiveAveragePool((3, 3)), {}),
    (Mean((2, 3), True), {}),
    (Mean((1,), True, divide=False), {}),
    (Pad(((0, 0), (0, 0), (1, 1), (0, 0)), 0.0), {}),
    (Softmax(), {}),
    (Normalize(True, 1e-5), {"gain": torch.ones(4), "bias": torch.zeros(4)}),
    (Clamp(-math.inf, 1.0), {}),
    (
        Convolution((1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        {"weight": torch.randn(5, 4, 3, 3), "bias": torch.zeros(5)},
    ),
    (
        Convolution((1, 1), ((1, 1), (1, 1)), (1, 1), 4),
        {"weight": torch.randn(4, 1, 3, 3), "bias": torch.zeros(4)},
    ),
    (Linear(), {"weight": torch.randn(4, 4), "bias": torch.zeros(4)}),
]


@pytest.mark.parametrize(("operation", "constants"), CASES, ids=lambda value: str(value)[:30])
def test_results_at_other_places_along_unmixed_axes_do_not_change(
    operation: Operation, constants: dict[str, Tensor]
):
    x = torch.rand(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    mixed = operation.mixed_axes(0, tuple(x.shape))
    before = operation.compute([x], constants)
    for axis in range(4):
        changed = x.clone()
        changed.select(axis, 1).add_(0.3)
        after = operation.compute([changed], constants)
        elsewhere = [i for i in range(before.shape[axis]) if i != 1]
        same = torch.equal(
            before.index_select(axis, torch.tensor(elsewhere)),
            after.index_select(axis, torch.tensor(elsewhere)),
        )
        if axis not in mixed:
            assert before.shape[axis] == x.shape[axis]
            assert same


def test_only_sums_ignore_zeros():
    ignoring = [op for op, _ in CASES if op.ignores_zeros]
    assert [op.kind for op in ignoring] == ["mean", "convolution", "convolution", "linear"]
    assert not Mean((1,), True).ignores_zeros
