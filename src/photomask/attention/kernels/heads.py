"""The heads of a layer, known on the host, and which kernel computes which of them.

A dense kernel takes query heads that share key heads evenly: query head i of n reads key head
i // (n / m) of m. The dense heads of a plan are scattered, so they are cut into calls that keep the
rule. Of what a call reads, heads that stand one behind the other are not copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor

from photomask.attention.patterns import Pattern
from photomask.errors import DataError


class Remainder(Enum):
    """What becomes of the dense heads that some key heads have more than others."""

    GATHERED = auto()
    """One more call of the dense kernel, over copied key heads."""
    SPARSE = auto()
    """The sparse kernel computes them in its one launch; its dense heads are slower."""


@dataclass(frozen=True)
class DenseCall:
    """Heads that a dense kernel computes in one call.

    Attributes:
        heads: query heads; head i of them reads key head i // (heads per key head) of `key_heads`.
        key_heads: may repeat.
    """

    heads: tuple[int, ...]
    key_heads: tuple[int, ...]


@dataclass(frozen=True)
class Route:
    """Every head of a layer, by the kernel that computes it where dense heads see plain causality.

    Attributes:
        dense: calls of a dense kernel.
        sparse: heads of the sparse kernel, ascending.
    """

    dense: tuple[DenseCall, ...]
    sparse: tuple[int, ...]


def route_heads(
    patterns: Sequence[Pattern], key_heads: int, remainder: Remainder = Remainder.GATHERED
) -> Route:
    """Decides which kernel computes which head.

    If every key head has at least c dense heads, c of each go into a call that copies no key. The
    rest, of which key heads have different numbers, are the remainder.

    Args:
        patterns: of the H heads.
        key_heads: G, which divides H; head h reads the keys of h // (H / G).
        remainder: what becomes of the rest.
    """
    group = len(patterns) // key_heads
    dense = [
        [head for head in range(first, first + group) if patterns[head] is Pattern.DENSE]
        for first in range(0, len(patterns), group)
    ]
    shared = min(map(len, dense))
    calls = [_call([heads[:shared] for heads in dense])] if shared else []
    rest = [heads[shared:] for heads in dense]
    if any(rest) and remainder is Remainder.GATHERED:
        calls.append(_call(rest))
    routed = {head for call in calls for head in call.heads}
    sparse = tuple(head for head in range(len(patterns)) if head not in routed)
    return Route(tuple(calls), sparse)


def _call(heads: Sequence[Sequence[int]]) -> DenseCall:
    """Makes one call of the heads of each key head, repeating a key head where it has more."""
    each = math.gcd(*map(len, heads))
    owners = [owner for owner, some in enumerate(heads) for _ in range(len(some) // each)]
    return DenseCall(tuple(head for some in heads for head in some), tuple(owners))


@dataclass(frozen=True, eq=False)
class Selection:
    """Some heads of tensors [B, heads, L, D], on a device.

    Attributes:
        numbers: of the heads.
        index: int64, the same numbers.
    """

    numbers: tuple[int, ...]
    index: Tensor

    @classmethod
    def of(cls, numbers: Sequence[int], device: torch.device) -> Selection:
        """Uploads the numbers of some heads."""
        return cls(tuple(numbers), torch.tensor(numbers, dtype=torch.int64, device=device))

    @property
    def as_slice(self) -> slice | None:
        """The heads as a slice, if they stand one behind the other."""
        first, stop = self.numbers[0], self.numbers[0] + len(self.numbers)
        return slice(first, stop) if self.numbers == tuple(range(first, stop)) else None

    def take(self, tensor: Tensor) -> Tensor:
        """Returns the heads of [B, heads, L, D]; a view where they are a slice, else a copy."""
        where = self.as_slice
        return tensor.index_select(1, self.index) if where is None else tensor[:, where]

    def put(self, tensor: Tensor, heads: Tensor) -> None:
        """Writes the heads into [B, heads, L, D]."""
        where = self.as_slice
        if where is None:
            tensor.index_copy_(1, self.index, heads)
        else:
            tensor[:, where] = heads


@dataclass(frozen=True, eq=False)
class DenseSelection:
    """The heads of a `DenseCall`, on a device."""

    heads: Selection
    key_heads: Selection


@dataclass(frozen=True, eq=False)
class LayerHeads:
    """The patterns of a layer's heads, on the host and on one device; made once, by `of`.

    Attributes:
        patterns: of the H heads.
        key_heads: G.
        codes: int8 [H], the numbers of the patterns.
        every: int32 [H], the numbers of all heads.
        sparse: int32 [S], the heads that are left where a dense kernel computes the dense calls.
        dense_calls: what a dense kernel can compute.
    """

    patterns: tuple[Pattern, ...]
    key_heads: int
    codes: Tensor
    every: Tensor
    sparse: Tensor
    dense_calls: tuple[DenseSelection, ...]

    @classmethod
    def of(
        cls,
        patterns: Sequence[Pattern],
        key_heads: int,
        device: torch.device | str,
        remainder: Remainder = Remainder.GATHERED,
    ) -> LayerHeads:
        """Routes the heads of a layer and uploads their numbers, which may wait for the device.

        Args:
            patterns: of the H heads.
            key_heads: G, which divides H.
            device: of the tensors to come.
            remainder: what becomes of dense heads that do not share key heads evenly.

        Raises:
            DataError: no heads, or a number of them that the key heads do not divide.
        """
        if not patterns or key_heads < 1 or len(patterns) % key_heads:
            raise DataError(f"{key_heads} key heads do not divide {len(patterns)} heads")
        device = torch.device(device)
        patterns = tuple(map(Pattern, patterns))
        route = route_heads(patterns, key_heads, remainder)
        return cls(
            patterns,
            key_heads,
            codes=torch.tensor(patterns, dtype=torch.int8, device=device),
            every=torch.arange(len(patterns), dtype=torch.int32, device=device),
            sparse=torch.tensor(route.sparse, dtype=torch.int32, device=device),
            dense_calls=tuple(
                DenseSelection(
                    Selection.of(call.heads, device), Selection.of(call.key_heads, device)
                )
                for call in route.dense
            ),
        )

    @property
    def all_in_one_dense_call(self) -> bool:
        """Whether one call of a dense kernel computes the layer."""
        return len(self.dense_calls) == 1 and not self.sparse.numel()
