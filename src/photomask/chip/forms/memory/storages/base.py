"""What every storage of a weight has: streams of integers, and a way back to the weight.

All storages read a weight [outputs, inputs, *kernel] row by row. A row belongs to one output
channel at one kernel position. The outputs are the slowest axis, then comes the kernel, then the
inputs, which are summed.

A weight is *zero* if its integer equals the zero point of its output channel, because it then
contributes nothing to a sum. Without zero points, the integer 0 is zero. The value of a weight in
a stream is always its own integer, from which no zero point is subtracted.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Self

import numpy as np

from photomask.chip.formats import IntFormat
from photomask.documents import Document
from photomask.errors import DataError

Streams = Mapping[str, np.ndarray]
"""The integers of each stream by its name, int64 [elements]."""


class Storage(Document):
    """A way to store a weight without its zeros, as one or two streams of integers."""

    @classmethod
    @abstractmethod
    def fitted(cls, weight: np.ndarray, zero: np.ndarray, format: IntFormat) -> Self | None:
        """Returns the storage of this kind that takes the fewest bits for a weight.

        Args:
            weight: integers [outputs, inputs, *kernel].
            zero: the integer that is zero, [outputs].
            format: the format of the weight.

        Returns:
            The storage, or None if none of this kind takes fewer bits than the dense weight.
        """

    @abstractmethod
    def formats(self, format: IntFormat, shape: tuple[int, ...]) -> dict[str, IntFormat]:
        """Returns the format of each stream of a weight.

        Args:
            format: the format of the weight.
            shape: the shape of the weight, [outputs, inputs, *kernel].
        """

    @abstractmethod
    def compress(self, weight: np.ndarray, zero: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the streams of a weight, int64 [elements] by name.

        Args:
            weight: integers [outputs, inputs, *kernel].
            zero: the integer that is zero, [outputs].

        Raises:
            DataError: the weight does not have the pattern of this storage, or has fewer than two
                axes.
        """

    @abstractmethod
    def restore(self, streams: Streams, shape: tuple[int, ...], zero: np.ndarray) -> np.ndarray:
        """Reads a weight back from its streams; this is the inverse of `compress`.

        Args:
            streams: the integers of each stream.
            shape: the shape of the weight, [outputs, inputs, *kernel].
            zero: the integer that is zero, [outputs].

        Returns:
            The weight as int64 in that shape.

        Raises:
            DataError: the streams are not those of a weight of this shape; the message says where.
        """


def rows_of(weight: np.ndarray) -> np.ndarray:
    """Returns a weight as int64 [outputs, kernel positions, inputs].

    Raises:
        DataError: the tensor has fewer than two axes.
    """
    if weight.ndim < 2:
        raise DataError(
            "a weight has the shape [outputs, inputs, *kernel], got a tensor of shape "
            f"{list(weight.shape)}"
        )
    outputs, inputs, *kernel = weight.shape
    moved = np.moveaxis(weight.astype(np.int64), 1, -1)
    return moved.reshape(outputs, math.prod(kernel), inputs)


def weight_of(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the weight of a shape from its rows; this is the inverse of `rows_of`."""
    outputs, inputs, *kernel = shape
    return np.moveaxis(rows.reshape(outputs, *kernel, inputs), -1, 1)


def zero_rows(shape: tuple[int, ...], zero: np.ndarray) -> np.ndarray:
    """Returns int64 [outputs, kernel positions, inputs] in which every weight is zero."""
    outputs, inputs, *kernel = shape
    return np.repeat(zero.astype(np.int64), math.prod(kernel) * inputs).reshape(
        outputs, math.prod(kernel), inputs
    )


def require_length(streams: Streams, name: str, expected: int) -> np.ndarray:
    """Returns a stream that must have a number of elements.

    Raises:
        DataError: the stream has another number of elements.
    """
    if streams[name].shape != (expected,):
        raise DataError(
            f"the stream {name!r} has {streams[name].size} elements, expected {expected}"
        )
    return streams[name]


def index_format(count: int) -> IntFormat:
    """Returns the unsigned format that tells `count` things apart, of at least one bit."""
    return IntFormat(bits=max(1, (count - 1).bit_length()), signed=False)
