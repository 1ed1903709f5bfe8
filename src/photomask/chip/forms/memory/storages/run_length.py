"""Run lengths: every stored weight says how many zeros come before it.

Weights are read row by row, and runs go on from one row to the next. An entry is one element of the
stream `runs` and one of the stream `values`: it stands for `run` weights that are zero, and then
for the value. A run is an unsigned integer of `run_bits` bits. If more than `2**run_bits - 1` zeros
follow each other, an entry with the longest run and the value zero comes first. Weights after the
last entry are zero.

Source: Han et al. 2016, "EIE: efficient inference engine on compressed deep neural network",
arXiv:1602.01528, section 3.2, with 4 bits for a run, column by column.
"""

from typing import Literal, Self

import numpy as np
from pydantic import Field

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

MOST_RUN_BITS = 16


class RunLengthStorage(Storage):
    """The storage of a weight with few weights that are not zero."""

    kind: Literal["run-length"] = "run-length"
    run_bits: int = Field(ge=1, le=MOST_RUN_BITS)

    @classmethod
    def fitted(cls, weight: np.ndarray, zero: np.ndarray, format: IntFormat) -> Self | None:
        """Returns the storage with the width of a run that takes the fewest bits."""
        gaps = _gaps(weight, zero)
        sizes = {
            bits: (gaps.size + int((gaps >> bits).sum())) * (bits + format.bits)
            for bits in range(1, MOST_RUN_BITS + 1)
        }
        best = min(sizes, key=lambda bits: sizes[bits])
        return cls(run_bits=best) if sizes[best] < weight.size * format.bits else None

    def formats(self, format: IntFormat, shape: tuple[int, ...]) -> dict[str, IntFormat]:
        """Returns the width of a run for `runs`, and the weight's format for `values`."""
        return {"runs": IntFormat(bits=self.run_bits, signed=False), "values": format}

    def compress(self, weight: np.ndarray, zero: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the runs and the values behind them."""
        gaps, longest = _gaps(weight, zero), (1 << self.run_bits) - 1
        fillers = gaps >> self.run_bits
        last = np.cumsum(fillers + 1) - 1
        runs = np.full(int((fillers + 1).sum()), longest, dtype=np.int64)
        runs[last] = gaps & longest
        return {"runs": runs, "values": rows_of(weight).reshape(-1)[np.cumsum(runs + 1) - 1]}

    def restore(self, streams: Streams, shape: tuple[int, ...], zero: np.ndarray) -> np.ndarray:
        """Puts every value behind its run.

        Raises:
            DataError: the streams differ in length, or a value lies behind the last weight.
        """
        rows = zero_rows(shape, zero)
        runs = streams["runs"]
        values = require_length(streams, "values", runs.size)
        places = np.cumsum(runs + 1) - 1
        if places.size and places[-1] >= rows.size:
            entry = int(np.argmax(places >= rows.size))
            raise DataError(
                f"entry {entry} of the stream 'runs' leads to weight {places[entry]} of a weight "
                f"of {rows.size}"
            )
        rows.reshape(-1)[places] = values
        return weight_of(rows, shape)


def _gaps(weight: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Returns how many zeros come before each weight that is not zero."""
    stored = np.flatnonzero(rows_of(weight) != zero.reshape(-1, 1, 1))
    return np.diff(stored, prepend=-1) - 1
