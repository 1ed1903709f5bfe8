"""A bitmap: one bit for each weight says whether it is stored, and a stream holds those that are.

The stream `bitmap` has one bit for each weight, row by row: 1 if the weight is not zero. The stream
`values` has the weights that are not zero, in the same order.
"""

from typing import Literal, Self

import numpy as np

from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.storages.base import (
    Storage,
    Streams,
    require_length,
    rows_of,
    weight_of,
    zero_rows,
)
from photomask.errors import DataError


class BitmapStorage(Storage):
    """The storage of a weight whose zeros follow no pattern."""

    kind: Literal["bitmap"] = "bitmap"

    @classmethod
    def fitted(cls, weight: np.ndarray, zero: np.ndarray, format: IntFormat) -> Self | None:
        """Returns the storage if bits and values take fewer bits than all values."""
        stored = int((rows_of(weight) != zero.reshape(-1, 1, 1)).sum())
        return cls() if weight.size + stored * format.bits < weight.size * format.bits else None

    def formats(self, format: IntFormat, shape: tuple[int, ...]) -> dict[str, IntFormat]:
        """Returns one bit for `bitmap`, and the weight's format for `values`."""
        return {"bitmap": IntFormat(bits=1, signed=False), "values": format}

    def compress(self, weight: np.ndarray, zero: np.ndarray) -> dict[str, np.ndarray]:
        """Returns a bit for each weight, and the weights whose bit is set."""
        rows = rows_of(weight)
        stored = rows != zero.reshape(-1, 1, 1)
        return {"bitmap": stored.reshape(-1).astype(np.int64), "values": rows[stored]}

    def restore(self, streams: Streams, shape: tuple[int, ...], zero: np.ndarray) -> np.ndarray:
        """Puts every value where its bit is set.

        Raises:
            DataError: there is not one bit for each weight, or not one value for each set bit.
        """
        rows = zero_rows(shape, zero)
        stored = require_length(streams, "bitmap", rows.size).reshape(rows.shape) != 0
        count, found = int(stored.sum()), streams["values"].size
        if count != found:
            raise DataError(
                f"the stream 'bitmap' sets {count} bits, but the stream 'values' has {found} values"
            )
        rows[stored] = streams["values"]
        return weight_of(rows, shape)
