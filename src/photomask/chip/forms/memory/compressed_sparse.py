"""N:M sparse weights: of M consecutive input channels at most N are not zero, and only N are kept.

A weight is [outputs, inputs, *kernel]. It is read row by row; a row is one output channel at one
kernel position. Outputs are the slowest axis, then the kernel, then the inputs, which are summed.
Each row is cut into groups of M inputs, the last filled up with zeros. A group becomes N slots, by
ascending position: all values that are not zero, and zeros from the lowest position on where there
are fewer. Two streams (see `compressed`) hold the slots: their values in the weight's format, and
their positions in the group, unsigned, in `ceil(log2(M))` bits.

Source: Mishra et al. 2021, "Accelerating sparse deep neural networks", arXiv:2104.08378, for 2:4.
"""

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.compressed import StreamPacking, pack_stream, unpack_stream
from photomask.chip.target import Target
from photomask.documents import Document
from photomask.errors import DataError


class SparsePacking(Document):
    """How an N:M sparse weight is stored."""

    kept: int = Field(ge=1)
    """N: slots of a group."""
    group: int = Field(ge=2, le=1 << 16)
    """M: input channels of a group."""
    format: IntFormat
    word_bits: int = Field(ge=1)
    first_bit: Literal["least_significant", "most_significant"]

    @model_validator(mode="after")
    def _is_sparse(self) -> Self:
        if self.kept > self.group:
            raise ValueError(f"{self.kept} of {self.group} input channels cannot be kept")
        return self

    @classmethod
    def of(cls, kept: int, group: int, format: IntFormat, target: Target) -> Self:
        """Returns N:M storage of weights of `format` in the words of `target`."""
        return cls(
            kept=kept,
            group=group,
            format=format,
            word_bits=target.memory_word_bits,
            first_bit=target.first_lane,
        )

    @property
    def index_bits(self) -> int:
        """Bits of a position."""
        return (self.group - 1).bit_length()

    @property
    def values(self) -> StreamPacking:
        """The stream of values."""
        return StreamPacking(format=self.format, word_bits=self.word_bits, first_bit=self.first_bit)

    @property
    def indices(self) -> StreamPacking:
        """The stream of positions."""
        return StreamPacking(
            format=IntFormat(bits=self.index_bits, signed=False),
            word_bits=self.word_bits,
            first_bit=self.first_bit,
        )

    def slots(self, shape: tuple[int, ...]) -> int:
        """Returns how many values are stored for a weight [outputs, inputs, *kernel]."""
        outputs, inputs, *kernel = shape
        return outputs * math.prod(kernel) * -(-inputs // self.group) * self.kept


@dataclass(frozen=True)
class SparseImage:
    """A compressed weight: both streams as uint8 [words, word_bytes]."""

    values: np.ndarray
    indices: np.ndarray

    def bits_per_weight(self, packing: SparsePacking, shape: tuple[int, ...]) -> float:
        """Returns what one weight of the whole tensor takes, zeros and unused bits included."""
        words = len(self.values) + len(self.indices)
        return words * packing.word_bits / max(1, math.prod(shape))


def pack_sparse(weight: np.ndarray, packing: SparsePacking) -> SparseImage:
    """Compresses an N:M sparse weight.

    Args:
        weight: integers [outputs, inputs, *kernel]; the zero of a weight is the integer 0.
        packing: N, M, format and words.

    Raises:
        DataError: a group has more than N values that are not zero, or a value is outside the
            format, or the tensor has fewer than two axes.
    """
    groups = _groups_of(weight, packing)
    occupied = groups != 0
    counts = occupied.sum(axis=2)
    if (counts > packing.kept).any():
        raise DataError(_not_sparse(weight, packing, counts))
    # Occupied positions come first, by position, then free ones; the first N, by position.
    order = np.argsort(~occupied, axis=2, kind="stable")
    positions = np.sort(order[:, :, : packing.kept], axis=2)
    values = np.take_along_axis(groups, positions, axis=2)
    return SparseImage(pack_stream(values, packing.values), pack_stream(positions, packing.indices))


def unpack_sparse(image: SparseImage, packing: SparsePacking, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an N:M sparse weight back; the inverse of `pack_sparse`.

    Args:
        image: both streams.
        packing: N, M, format and words.
        shape: [outputs, inputs, *kernel].

    Returns:
        int64 of that shape.

    Raises:
        DataError: a stream has words missing or left over, positions do not ascend within a group
            or lie outside it, or a value that is not zero lies behind the last input channel.
    """
    outputs, inputs, *kernel = shape
    groups = -(-inputs // packing.group)
    rows, slots = outputs * math.prod(kernel), packing.slots(shape)
    values = unpack_stream(image.values, packing.values, slots)
    positions = unpack_stream(image.indices, packing.indices, slots)
    values = values.reshape(rows, groups, packing.kept)
    positions = positions.reshape(rows, groups, packing.kept)
    wrong = (np.diff(positions, axis=2) <= 0).any(axis=2) | (positions >= packing.group).any(axis=2)
    if wrong.any():
        row, group = np.argwhere(wrong)[0]
        raise DataError(
            f"{_place(shape, int(row), int(group), packing)} has the positions "
            f"{positions[row, group].tolist()}; they must ascend and be below {packing.group}"
        )
    whole = np.zeros((rows, groups, packing.group), dtype=np.int64)
    np.put_along_axis(whole, positions, values, axis=2)
    flat = whole.reshape(rows, groups * packing.group)
    if flat[:, inputs:].any():
        row = int(np.argwhere(flat[:, inputs:])[0, 0])
        raise DataError(
            f"{_place(shape, row, groups - 1, packing)} has a value behind the last input channel"
        )
    return np.moveaxis(flat[:, :inputs].reshape(outputs, *kernel, inputs), -1, 1)


def check_sparse(image: SparseImage, packing: SparsePacking, expected: np.ndarray) -> None:
    """Reads a compressed weight back and compares it with the tensor it should hold.

    Raises:
        DataError: a weight differs, or the streams hold no such tensor; says where.
    """
    found = unpack_sparse(image, packing, expected.shape)
    if (wrong := np.argwhere(found != expected)).size:
        at = tuple(int(n) for n in wrong[0])
        raise DataError(
            f"{len(wrong)} of {expected.size} weights differ, first weight {list(at)}: found "
            f"{found[at]}, expected {expected[at]}"
        )


def _groups_of(weight: np.ndarray, packing: SparsePacking) -> np.ndarray:
    """Returns the weight as int64 [rows, groups, M], zeros behind the last input."""
    if weight.ndim < 2:
        raise DataError(
            f"a weight is [outputs, inputs, *kernel], got a tensor of shape {list(weight.shape)}"
        )
    rows = np.moveaxis(weight.astype(np.int64), 1, -1)
    inputs = weight.shape[1]
    groups = -(-inputs // packing.group)
    padded = np.zeros((math.prod(rows.shape[:-1]), groups * packing.group), dtype=np.int64)
    padded[:, :inputs] = rows.reshape(-1, inputs)
    return padded.reshape(len(padded), groups, packing.group)


def _not_sparse(weight: np.ndarray, packing: SparsePacking, counts: np.ndarray) -> str:
    row, group = (int(n) for n in np.argwhere(counts > packing.kept)[0])
    return (
        f"{_place(weight.shape, row, group, packing)} has {counts[row, group]} weights that are "
        f"not zero; {packing.kept}:{packing.group} sparsity allows {packing.kept}. "
        f"{int((counts > packing.kept).sum())} of {counts.size} groups have too many"
    )


def _place(shape: tuple[int, ...], row: int, group: int, packing: SparsePacking) -> str:
    """Says where a group lies."""
    output, *kernel = (int(n) for n in np.unravel_index(row, (shape[0], *shape[2:])))
    first = group * packing.group
    last = min(first + packing.group, shape[1]) - 1
    at = f", kernel position {tuple(kernel)}" if kernel else ""
    return f"row {row} (output {output}{at}), group {group} (inputs {first} to {last})"
