"""N:M sparse weights: of M consecutive input channels at most N are not zero and are stored.

Each row is cut into groups of M inputs; the last group is filled up with weights that are zero. A
group is stored as N slots in the order of their positions: all values that are not zero and, if
there are fewer than N, the values at the lowest free positions, which are zero.

The stream `values` holds the slots. The stream `indices` holds one number for each group, which
says at which of the C(M, N) sets of positions the slots lie. The positions p_1 < ... < p_N have the
number C(p_1, 1) + C(p_2, 2) + ... + C(p_N, N). For 2:4, the sets (0,1), (0,2), (1,2), (0,3), (1,3),
(2,3) have the numbers 0 to 5, so that an index takes 3 bits. Two positions of 2 bits would take 4.

Sources: Mishra et al. 2021, "Accelerating sparse deep neural networks", arXiv:2104.08378, for 2:4;
Knuth, "The Art of Computer Programming", volume 4A, section 7.2.1.3, for the numbers of the sets.
"""

import math
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.storages.base import (
    Storage,
    Streams,
    require_length,
    rows_of,
    weight_of,
    zero_rows,
)
from photomask.chip.sparsity import NofM
from photomask.errors import DataError

MOST_INDEX_BITS = 62
"""The widest index, because the numbers of the sets are computed as int64."""


class NofMStorage(Storage):
    """The storage of a weight that keeps the pattern N:M."""

    kind: Literal["n:m"] = "n:m"
    pattern: NofM = Field()

    @model_validator(mode="after")
    def _has_narrow_indices(self) -> Self:
        if self.pattern.index_bits > MOST_INDEX_BITS:
            raise ValueError(
                f"an index of {self.pattern} takes {self.pattern.index_bits} bits, and the storage "
                f"has at most {MOST_INDEX_BITS}; take a smaller group"
            )
        return self

    @classmethod
    def fitted(cls, weight: np.ndarray, zero: np.ndarray, format: IntFormat) -> Self | None:
        """Returns the storage with the tightest pattern that the weight keeps."""
        centred = weight - zero.reshape(-1, *(1,) * (weight.ndim - 1))
        pattern = NofM.tightest(centred, format.bits)
        return None if pattern is None else cls(pattern=pattern)

    def formats(self, format: IntFormat, shape: tuple[int, ...]) -> dict[str, IntFormat]:
        """Returns the weight's format for `values`, and the width of an index for `indices`."""
        index = IntFormat(bits=max(1, self.pattern.index_bits), signed=False)
        return {"values": format, "indices": index}

    def compress(self, weight: np.ndarray, zero: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the slots and the numbers of their positions.

        Raises:
            DataError: a group has more than N weights that are not zero.
        """
        groups, kept = self._groups_of(weight, zero), self.pattern.kept
        occupied = groups != zero.reshape(-1, 1, 1, 1)
        counts = occupied.sum(axis=3)
        if (counts > kept).any():
            raise DataError(self._not_sparse(weight.shape, counts))
        # The sort puts the occupied positions first and the free ones behind them, each in
        # ascending order. The first N of them are then sorted again, so that slots ascend.
        order = np.argsort(~occupied, axis=3, kind="stable")
        positions = np.sort(order[..., :kept], axis=3)
        values = np.take_along_axis(groups, positions, axis=3)
        return {"values": values.reshape(-1), "indices": self._numbers(positions).reshape(-1)}

    def restore(self, streams: Streams, shape: tuple[int, ...], zero: np.ndarray) -> np.ndarray:
        """Puts every slot at its position.

        Raises:
            DataError: a stream has too few or too many elements, an index is not the number of a
                set of positions, or a value that is not zero lies behind the last input channel.
        """
        outputs, inputs, *kernel = shape
        groups = -(-inputs // self.pattern.group)
        grid = (outputs, math.prod(kernel), groups)
        indices = require_length(streams, "indices", math.prod(grid)).reshape(grid)
        values = require_length(streams, "values", math.prod(grid) * self.pattern.kept)
        sets = math.comb(self.pattern.group, self.pattern.kept)
        if (wrong := np.argwhere((indices < 0) | (indices >= sets))).size:
            at = tuple(int(n) for n in wrong[0])
            raise DataError(
                f"{self._place(shape, at)} has the index {indices[at]}; the indices of "
                f"{self.pattern} are 0 to {sets - 1}"
            )
        whole = zero_rows((outputs, groups * self.pattern.group, *kernel), zero)
        whole = whole.reshape(*grid, self.pattern.group)
        np.put_along_axis(
            whole, self._positions(indices), values.reshape(*grid, self.pattern.kept), axis=3
        )
        rows = whole.reshape(*grid[:2], -1)
        behind = (rows[..., inputs:] != zero.reshape(-1, 1, 1)).any(axis=2)
        if behind.any():
            output, position = (int(n) for n in np.argwhere(behind)[0])
            place = self._place(shape, (output, position, groups - 1))
            raise DataError(f"{place} has a value behind the last input channel")
        return weight_of(rows[..., :inputs], shape)

    def _groups_of(self, weight: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """Returns the weight as int64 [outputs, kernel positions, groups, M]."""
        rows, group = rows_of(weight), self.pattern.group
        outputs, positions, inputs = rows.shape
        groups = -(-inputs // group)
        whole = zero_rows((outputs, groups * group, positions), zero)
        whole[..., :inputs] = rows
        return whole.reshape(outputs, positions, groups, group)

    def _numbers(self, positions: np.ndarray) -> np.ndarray:
        """Returns the number of each set of ascending positions [..., N]."""
        found = np.zeros(positions.shape[:-1], dtype=np.int64)
        for slot in range(self.pattern.kept):
            found += self._binomials(slot)[positions[..., slot]]
        return found

    def _positions(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the ascending positions [..., N] of each number; the inverse of `_numbers`."""
        rest = numbers.copy()
        found = np.zeros((*numbers.shape, self.pattern.kept), dtype=np.int64)
        for slot in reversed(range(self.pattern.kept)):
            binomials = self._binomials(slot)
            # The last position of a set is the largest whose binomial does not exceed the number.
            found[..., slot] = np.searchsorted(binomials, rest, side="right") - 1
            rest -= binomials[found[..., slot]]
        return found

    def _binomials(self, slot: int) -> np.ndarray:
        """Returns C(p, slot + 1) for every position p that this slot can have."""
        last = self.pattern.group - self.pattern.kept + slot
        return np.array([math.comb(p, slot + 1) for p in range(last + 1)], dtype=np.int64)

    def _not_sparse(self, shape: tuple[int, ...], counts: np.ndarray) -> str:
        crowded = counts > self.pattern.kept
        at = tuple(int(n) for n in np.argwhere(crowded)[0])
        return (
            f"{self._place(shape, at)} has {counts[at]} weights that are not zero; {self.pattern} "
            f"sparsity allows {self.pattern.kept}. {int(crowded.sum())} of {counts.size} groups "
            "have too many"
        )

    def _place(self, shape: tuple[int, ...], at: tuple[int, ...]) -> str:
        """Returns a description of where a group lies: its output, kernel position and inputs."""
        output, position, group = at
        first = group * self.pattern.group
        last = min(first + self.pattern.group, shape[1]) - 1
        kernel = tuple(int(n) for n in np.unravel_index(position, shape[2:])) if shape[2:] else ()
        where = f", kernel position {kernel}" if kernel else ""
        return f"output {output}{where}, group {group} (inputs {first} to {last})"
