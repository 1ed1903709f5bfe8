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
    """Every head of a layer, by the kernel that computes it where dense heads see plain causality.

    Attributes:
        dense: calls of a dense kernel, the largest first.
        sparse: heads of the sparse kernel, ascending.
    """

    dense: tuple[DenseCall, ...]
    sparse: tuple[int, ...]


def route_heads(patterns: Sequence[Pattern], key_heads: int) -> Route:
    """Decides which kernel computes which head.

    Neighbouring key heads all of whose heads are dense make one call. Of another key head, the
    dense heads that stand at equal steps make a call.

    Args:
        patterns: of the H heads.
        key_heads: G, which divides H; head h reads the keys of h // (H / G).
    """
    group = len(patterns) // key_heads
    calls: list[DenseCall] = []
    whole = 0  # key heads before this one, all of whose heads are dense
    for owner in range(key_heads + 1):
        members = range(owner * group, (owner + 1) * group) if owner < key_heads else range(0)
        dense = [head for head in members if patterns[head] is Pattern.DENSE]
        if len(dense) == group:
            whole += 1
            continue
        if whole:
            first = owner - whole
            calls.append(DenseCall(slice(first * group, owner * group), slice(first, owner)))
            whole = 0
        calls += [DenseCall(heads, slice(owner, owner + 1)) for heads in _equal_steps(dense)]
    calls.sort(key=lambda call: -len(range(len(patterns))[call.heads]))
    sparse = [head for head, pattern in enumerate(patterns) if pattern is not Pattern.DENSE]
    return Route(tuple(calls), tuple(sparse))


def _equal_steps(numbers: Sequence[int]) -> list[slice]:
    """Cuts ascending numbers into slices, the longest first."""
    left, slices = list(numbers), []
    while left:
        steps = range(1, left[-1] - left[0] + 1) or [1]
        longest = max(
            (_reach(left, first, step) for first in left for step in steps),
            key=lambda found: len(range(found.start, found.stop, found.step)),
        )
        slices.append(longest)
        left = [n for n in left if n not in range(longest.start, longest.stop, longest.step)]
    return slices


def _reach(numbers: Sequence[int], first: int, step: int) -> slice:
    """Returns how far one gets from a number by equal steps."""
    last = first
    while last + step in numbers:
        last += step
    return slice(first, last + 1, step if last > first else 1)


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
