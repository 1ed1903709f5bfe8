"""Finds out how sparse an integer weight is, and which patterns its zeros follow.

A weight has the shape [outputs, inputs, *kernel], and inputs are the channels that one output sums.
Everything here is read from the integers themselves, so it holds for a program from any source: no
record of a pruning is needed, and none is believed.

- **N:M**: of M consecutive inputs, at one output and one kernel position, at most N are not zero.
  The last group may be shorter. Source: Mishra et al. 2021, arXiv:2104.08378, for 2:4.
- **Blocks**: a block has some consecutive outputs and some consecutive inputs at one kernel
  position, and is zero as a whole. Blocks in the size of an array are the tiles that the array
  loads.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from photomask.documents import Document

GROUPS = (2, 4, 8, 16)
"""The group sizes M in which `tightest` looks for a pattern."""


class NofM(Document):
    """The pattern N:M: at most `kept` of `group` consecutive inputs are not zero."""

    kept: int = Field(ge=1)
    group: int = Field(ge=2, le=1 << 16)

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.kept > self.group:
            raise ValueError(
                f"{self.kept} of {self.group} inputs cannot be kept; N must be at most M"
            )
        return self

    def __str__(self) -> str:
        return f"{self.kept}:{self.group}"

    @property
    def pattern_bits(self) -> int:
        """The width of a number that names which `kept` of the `group` inputs are kept, in bits."""
        return (math.comb(self.group, self.kept) - 1).bit_length()

    def counts(self, weight: np.ndarray) -> np.ndarray:
        """Returns how many inputs of each group are not zero, [outputs, groups, *kernel]."""
        return _blocks_of(weight != 0, 1, self.group).sum(axis=(1, 3))

    def holds(self, weight: np.ndarray) -> bool:
        """Tells whether every group of a weight keeps the pattern."""
        return bool((self.counts(weight) <= self.kept).all())

    @classmethod
    def tightest(cls, weight: np.ndarray, bits: int) -> Self | None:
        """Returns the pattern that stores a weight in the fewest bits, positions included.

        Args:
            weight: integers [outputs, inputs, *kernel].
            bits: the width of a value.

        Returns:
            The pattern, or None where no pattern takes fewer bits than the dense weight.
        """
        found: tuple[float, Self] | None = None
        for group in GROUPS:
            if group > weight.shape[1]:
                continue
            kept = int(_blocks_of(weight != 0, 1, group).sum(axis=(1, 3)).max(initial=0))
            slots = -(-weight.shape[1] // group) * max(kept, 1)
            size = slots * (bits + (group - 1).bit_length()) / weight.shape[1]
            if size < bits and (found is None or size < found[0]):
                found = size, cls(kept=max(kept, 1), group=group)
        return None if found is None else found[1]


class Blocks(Document):
    """The pattern of blocks of `outputs` outputs and `inputs` inputs at one kernel position."""

    outputs: int = Field(ge=1)
    inputs: int = Field(ge=1)

    def __str__(self) -> str:
        return f"blocks of {self.outputs}x{self.inputs}"

    def occupied(self, weight: np.ndarray) -> np.ndarray:
        """Tells which blocks hold a number that is not zero, [blocks, blocks, *kernel].

        The first axis counts blocks of outputs, and the second counts blocks of inputs.
        """
        return np.any(_blocks_of(weight != 0, self.outputs, self.inputs), axis=(1, 3))


@dataclass(frozen=True)
class WeightSparsity:
    """The zeros of an integer weight.

    Attributes:
        weights: the number of weights.
        zeros: the number of weights that are zero.
        pattern: the N:M pattern that stores it in the fewest bits, or None where none saves any.
        zero_outputs: the number of outputs whose weights are all zero.
    """

    weights: int
    zeros: int
    pattern: NofM | None
    zero_outputs: int

    @classmethod
    def of(cls, weight: np.ndarray, bits: int) -> Self:
        """Counts the zeros of a weight.

        Args:
            weight: integers [outputs, inputs, *kernel].
            bits: the width of a value.
        """
        rows = weight.reshape(len(weight), -1)
        return cls(
            weights=weight.size,
            zeros=int((weight == 0).sum()),
            pattern=NofM.tightest(weight, bits),
            zero_outputs=int((rows == 0).all(axis=1).sum()),
        )

    @property
    def sparsity(self) -> float:
        """The share of the weights that are zero, 0 to 1."""
        return self.zeros / max(1, self.weights)


def _blocks_of(flags: np.ndarray, outputs: int, inputs: int) -> np.ndarray:
    """Cuts flags [O, I, *kernel] into blocks, with False behind the last output and input.

    Returns:
        The blocks as [O blocks, outputs, I blocks, inputs, *kernel].
    """
    rows, columns = math.ceil(flags.shape[0] / outputs), math.ceil(flags.shape[1] / inputs)
    kernel = flags.shape[2:]
    whole = np.zeros((rows * outputs, columns * inputs, *kernel), dtype=bool)
    whole[: flags.shape[0], : flags.shape[1]] = flags
    return whole.reshape(rows, outputs, columns, inputs, *kernel)
