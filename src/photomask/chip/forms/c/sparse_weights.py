"""The weights of a layer without most of their zeros, as arrays that the C code reads."""

from dataclasses import dataclass
from typing import Self

import numpy as np

STEP_BITS = (4, 8)
"""The widths of a step that the code can read."""


@dataclass(frozen=True)
class Entries:
    """The weights of each output that are not zero, as values and steps.

    The terms of an output are its kernel positions, with the input channels as the fastest axis.
    An entry is a value and the step from the term of the entry before, or from term 0, to its own
    term. A step that is too wide for `step_bits` is divided by entries with the value 0. Every
    output has an even number of entries, because the code reads two at a time.
    """

    values: np.ndarray
    """The values of all outputs, [entries]."""
    steps: np.ndarray
    """The steps of all outputs, [entries]."""
    pairs: np.ndarray
    """The number of pairs of entries of each output, [outputs]."""
    step_bits: int

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        """Returns the entries with the width of a step that takes the fewest bytes.

        Args:
            rows: integers [outputs, terms].
        """
        found = [cls._of_width(rows, bits) for bits in STEP_BITS]
        return min(found, key=lambda entries: entries.values.size * (8 + entries.step_bits))

    @classmethod
    def _of_width(cls, rows: np.ndarray, step_bits: int) -> Self:
        widest = (1 << step_bits) - 1
        values: list[int] = []
        steps: list[int] = []
        pairs = []
        for row in rows:
            first, at = len(values), 0
            for term in np.flatnonzero(row).tolist():
                while term - at > widest:
                    values.append(0)
                    steps.append(widest)
                    at += widest
                values.append(int(row[term]))
                steps.append(term - at)
                at = term
            if (len(values) - first) % 2:
                values.append(0)
                steps.append(0)
            pairs.append((len(values) - first) // 2)
        return cls(np.array(values, int), np.array(steps, int), np.array(pairs), step_bits)

    @property
    def packed_steps(self) -> np.ndarray:
        """The steps as bytes: one for each entry, or one for two entries, the first one low."""
        if self.step_bits == 8:
            return self.steps
        return self.steps[::2] | self.steps[1::2] << 4
