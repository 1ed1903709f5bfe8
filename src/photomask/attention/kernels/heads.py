"""The heads of a layer, and the choice of the kernel that computes each of them.

A dense kernel takes query heads that share key heads evenly, and each tensor must have one stride
from head to head. The dense heads of a plan are scattered. They are therefore divided into several
calls, each on views of the tensors, so that nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.attention.patterns import Pattern
from photomask.errors import DataError


@dataclass(frozen=True)
class DenseCall:
    """The heads that a dense kernel computes in one call, as slices of the tensors.

    Attributes:
        heads: the query heads.
        key_heads: the key heads that they read.
    """

    heads: slice
    key_heads: slice


@dataclass(frozen=True)
class Route:
    """The heads of a layer for each kernel, if there is a dense kernel for the dense heads.

    Attributes:
        dense: the calls of the dense kernel, the largest first.
        sparse: the heads of the sparse kernel in ascending order.
    """

    dense: tuple[DenseCall, ...]
    sparse: tuple[int, ...]


def route_heads(patterns: Sequence[Pattern], key_heads: int) -> Route:
    """Decides which kernel computes which head.

    Neighbouring key heads make one call if all their query heads are dense. The other dense heads
    make calls of heads at equal distances. In such a call, all heads read the same key head, or
    each of them reads a different one.

    Args:
        patterns: the patterns of the H heads.
        key_heads: G, which divides H. Head h reads key head h // (H / G).
    """
    group = len(patterns) // key_heads
    sparse = [head for head, pattern in enumerate(patterns) if pattern is not Pattern.DENSE]
    used = {head // group for head in sparse}
    whole = [owner for owner in range(key_heads) if owner not in used and group > 1]
    calls = [
        DenseCall(slice(run.start * group, run.stop * group), run) for run in _neighbours(whole)
    ]
    dense = [head for head, pattern in enumerate(patterns) if pattern is Pattern.DENSE]
    calls += _equal_steps([head for head in dense if head // group not in whole], group)
    calls.sort(key=lambda call: -len(range(len(patterns))[call.heads]))
    return Route(tuple(calls), tuple(sparse))


def _neighbours(numbers: Sequence[int]) -> list[slice]:
    """Returns the runs of consecutive numbers among ascending numbers."""
    runs: list[slice] = []
    for number in numbers:
        if runs and runs[-1].stop == number:
            runs[-1] = slice(runs[-1].start, number + 1)
        else:
            runs.append(slice(number, number + 1))
    return runs


def _equal_steps(heads: Sequence[int], group: int) -> list[DenseCall]:
    """Divides heads into calls of heads at equal distances.

    Each call is the longest one among the heads that are left. Among calls of equal length, one
    with a single key head is preferred.
    """
    left, calls = list(heads), []
    while left:
        found, known = [], set(left)
        for first in left:
            for step in range(1, left[-1] - first + 1) or [1]:
                run = [first]
                across = step % group == 0
                while (head := run[-1] + step) in known:
                    if not across and head // group != first // group:
                        break
                    run.append(head)
                found.append((len(run), not across, -step, run))
        *_, run = max(found, key=lambda each: each[:3])
        step = run[1] - run[0] if len(run) > 1 else 1
        owners = slice(run[0] // group, run[-1] // group + 1, max(step // group, 1))
        calls.append(DenseCall(slice(run[0], run[-1] + 1, step), owners))
        left = [head for head in left if head not in run]
    return calls


@dataclass(frozen=True, eq=False)
class LayerHeads:
    """The patterns of a layer's heads, on the host and on one device. `of` makes it once.

    Attributes:
        patterns: the patterns of the H heads.
        key_heads: the number of key heads, G.
        codes: int8 [H], the numbers of the patterns.
        every: int32 [H], the numbers of all heads.
        sparse: int32 [S], the numbers of the heads that are not dense.
        dense_calls: the calls in which a dense kernel can compute the dense heads.
    """

    patterns: tuple[Pattern, ...]
    key_heads: int
    codes: Tensor
    every: Tensor
    sparse: Tensor
    dense_calls: tuple[DenseCall, ...]

    @classmethod
    def of(
        cls, patterns: Sequence[Pattern], key_heads: int, device: torch.device | str
    ) -> LayerHeads:
        """Routes the heads of a layer and uploads their numbers, which may wait for the device.

        Args:
            patterns: the patterns of the H heads.
            key_heads: G, which divides H.
            device: the device on which the layer will run.

        Raises:
            DataError: there are no heads, or the number of key heads does not divide their number.
        """
        if not patterns or key_heads < 1 or len(patterns) % key_heads:
            raise DataError(f"{key_heads} key heads do not divide {len(patterns)} heads")
        device = torch.device(device)
        patterns = tuple(map(Pattern, patterns))
        route = route_heads(patterns, key_heads)
        return cls(
            patterns,
            key_heads,
            codes=torch.tensor(patterns, dtype=torch.int8, device=device),
            every=torch.arange(len(patterns), dtype=torch.int32, device=device),
            sparse=torch.tensor(route.sparse, dtype=torch.int32, device=device),
            dense_calls=route.dense,
        )

    @property
    def all_in_one_dense_call(self) -> bool:
        """Whether one call of a dense kernel computes the whole layer."""
        return len(self.dense_calls) == 1 and not len(self.sparse)
