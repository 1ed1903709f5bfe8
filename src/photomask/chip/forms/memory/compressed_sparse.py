"""N:M sparse weights: of M consecutive input channels at most N are not zero and are stored.

A weight has the shape [outputs, inputs, *kernel] and is read row by row. A row belongs to one
output channel at one kernel position. The outputs are the slowest axis, then comes the kernel, then
the inputs, which are summed. Each row is cut into groups of M inputs; the last group is filled up
with zeros. A group is stored as N slots in the order of their positions: all values that are not
zero and, if there are fewer than N, zeros from the lowest free positions. Two streams (see
`compressed`) hold the slots. The first stream holds the values in the weight's format. The second
stream holds their positions within the group as unsigned integers of `ceil(log2(M))` bits.

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
    """The storage of an N:M sparse weight."""

    kept: int = Field(ge=1)
    """N, the number of slots of a group."""
    group: int = Field(ge=2, le=1 << 16)
    """M, the number of input channels of a group."""
    format: IntFormat
    word_bits: int = Field(ge=1)
    first_bit: Literal["least_significant", "most_significant"]

    @model_validator(mode="after")
    def _is_sparse(self) -> Self:
        if self.kept > self.group:
            raise ValueError(
                f"{self.kept} of {self.group} input channels cannot be kept; N must be at most M"
            )
        return self

    @classmethod
    def of(cls, kept: int, group: int, format: IntFormat, target: Target) -> Self:
        """Returns the N:M storage of weights of `format` in the memory words of `target`."""
        return cls(
            kept=kept,
            group=group,
            format=format,
            word_bits=target.memory_word_bits,
            first_bit=target.first_lane,
        )

    @property
    def index_bits(self) -> int:
        """The number of bits that a position takes."""
        return (self.group - 1).bit_length()

    @property
    def values(self) -> StreamPacking:
        """The packing of the stream of values."""
        return StreamPacking(format=self.format, word_bits=self.word_bits, first_bit=self.first_bit)

    @property
    def indices(self) -> StreamPacking:
        """The packing of the stream of positions."""
        return StreamPacking(
            format=IntFormat(bits=self.index_bits, signed=False),
            word_bits=self.word_bits,
            first_bit=self.first_bit,
        )

    def slots(self, shape: tuple[int, ...]) -> int:
        """Returns how many values are stored for a weight of shape [outputs, inputs, *kernel]."""
        outputs, inputs, *kernel = shape
        return outputs * math.prod(kernel) * -(-inputs // self.group) * self.kept


@dataclass(frozen=True)
class SparseImage:
    """A compressed weight: the streams of values and of positions, as uint8 [words, word_bytes]."""

    values: np.ndarray
    indices: np.ndarray

    def bits_per_weight(self, packing: SparsePacking, shape: tuple[int, ...]) -> float:
        """Returns how many bits are stored per weight of the whole tensor.

        Weights that are zero count as weights. Unused bits of the last words count as stored.
        """
        words = len(self.values) + len(self.indices)
        return words * packing.word_bits / max(1, math.prod(shape))


def pack_sparse(weight: np.ndarray, packing: SparsePacking) -> SparseImage:
    """Compresses an N:M sparse weight.

    Args:
        weight: integers [outputs, inputs, *kernel]; the integer 0 stands for the weight 0.
        packing: N, M, the format and the memory words.

    Raises:
        DataError: a group has more than N values that are not zero, a value is outside the format,
            or the tensor has fewer than two axes.
    """
    groups = _groups_of(weight, packing)
    occupied = groups != 0
    counts = occupied.sum(axis=2)
    if (counts > packing.kept).any():
        raise DataError(_not_sparse(weight, packing, counts))
    # The sort puts the occupied positions first and the free ones behind them, each in ascending
    # order. The first N of them are then sorted again, so that slots ascend.
    order = np.argsort(~occupied, axis=2, kind="stable")
    positions = np.sort(order[:, :, : packing.kept], axis=2)
    values = np.take_along_axis(groups, positions, axis=2)
    return SparseImage(pack_stream(values, packing.values), pack_stream(positions, packing.indices))


def unpack_sparse(image: SparseImage, packing: SparsePacking, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an N:M sparse weight back; this is the inverse of `pack_sparse`.

    Args:
        image: both streams.
        packing: N, M, the format and the memory words.
        shape: the shape of the weight, [outputs, inputs, *kernel].

    Returns:
        The weight as int64 in that shape.

    Raises:
        DataError: a stream has too few or too many words, positions do not ascend within a group or
            lie outside it, or a value that is not zero lies behind the last input channel.
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
            f"{positions[row, group].tolist()}; they must ascend and be less than {packing.group}"
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
    """Reads a compressed weight back and compares it with the tensor that it should hold.

    Raises:
        DataError: a weight differs, or the streams cannot be read as such a tensor; the message
            says where.
    """
    found = unpack_sparse(image, packing, expected.shape)
    if (wrong := np.argwhere(found != expected)).size:
        at = tuple(int(n) for n in wrong[0])
        raise DataError(
            f"{len(wrong)} of {expected.size} weights differ, first weight {list(at)}: found "
            f"{found[at]}, expected {expected[at]}"
        )


def _groups_of(weight: np.ndarray, packing: SparsePacking) -> np.ndarray:
    """Returns the weight as int64 [rows, groups, M], with zeros behind the last input."""
    if weight.ndim < 2:
        raise DataError(
            "a weight has the shape [outputs, inputs, *kernel], got a tensor of shape "
            f"{list(weight.shape)}"
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
    """Returns a description of where a group lies in the weight."""
    output, *kernel = (int(n) for n in np.unravel_index(row, (shape[0], *shape[2:])))
    first = group * packing.group
    last = min(first + packing.group, shape[1]) - 1
    at = f", kernel position {tuple(kernel)}" if kernel else ""
    return f"row {row} (output {output}{at}), group {group} (inputs {first} to {last})"
