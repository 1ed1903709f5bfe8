"""The heads of a layer, known on the host, and which kernel computes which of them.

A dense kernel takes query heads that share key heads evenly, each tensor with one step from head to
head. The dense heads of a plan are scattered, so they are cut into calls on views: nothing is
copied.
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
    """Heads that a dense kernel computes in one call, as slices of the tensors.

    Attributes:
        heads: query heads.
        key_heads: the key heads that they read.
    """

    heads: slice
    key_heads: slice


@dataclass(frozen=True)
class Route:
    """Every head of a layer, by the kernel that computes it where a dense kernel takes dense heads.

    Attributes:
        dense: calls of a dense kernel, the largest first.
        sparse: heads of the sparse kernel, ascending.
    """

    dense: tuple[DenseCall, ...]
    sparse: tuple[int, ...]


def route_heads(patterns: Sequence[Pattern], key_heads: int) -> Route:
    """Decides which kernel computes which head.

    Neighbouring key heads all of whose heads are dense make one call. Of the other dense heads,
    those at equal steps make a call if they read one key head, or each another.

    Args:
        patterns: of the H heads.
        key_heads: G, which divides H; head h reads the keys of h // (H / G).
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
    """Cuts ascending numbers where one is left out."""
    runs: list[slice] = []
    for number in numbers:
        if runs and runs[-1].stop == number:
            runs[-1] = slice(runs[-1].start, number + 1)
        else:
            runs.append(slice(number, number + 1))
    return runs


def _equal_steps(heads: Sequence[int], group: int) -> list[DenseCall]:
    """Cuts heads into calls, each the longest that is left; one key head wins over several."""
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
    """The patterns of a layer's heads, on the host and on one device; made once, by `of`.

    Attributes:
        patterns: of the H heads.
        key_heads: G.
        codes: int8 [H], the numbers of the patterns.
        every: int32 [H], the numbers of all heads.
        sparse: int32 [S], the heads that are not dense.
        dense_calls: what a dense kernel can compute.
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
            patterns: of the H heads.
            key_heads: G, which divides H.
            device: of the tensors to come.

        Raises:
            DataError: no heads, or a number of them that the key heads do not divide.
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
        """Whether one call of a dense kernel computes the layer."""
        return len(self.dense_calls) == 1 and not len(self.sparse)
