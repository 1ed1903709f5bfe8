"""Random integers, shapes and intervals of integer programs."""

import numpy as np

from photomask.chip.formats import Interval

WIDTHS = (2, 8, 8, 8, 16, 25, 30, 36)
"""Bits of activations; the widest force float64 and int64 arithmetic."""


class Source:
    """Random integers, shapes and intervals."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        """Draws an integer, both ends included."""
        return int(self.rng.integers(low, high, endpoint=True))

    def chance(self) -> bool:
        """Draws true or false."""
        return self.integer(0, 1) == 1

    def pick(self, *values):
        """Draws one of the values."""
        return values[self.integer(0, len(values) - 1)]

    def interval(self, *widths: int) -> Interval:
        """Draws an interval of one of these widths in bits."""
        bits = self.pick(*(widths or WIDTHS))
        low = self.pick(0, -(1 << (bits - 1)), 1 - (1 << (bits - 1)))
        return Interval(low, low + (1 << bits) - 1)

    def shape(self, rank: int, batch: int | None = None) -> tuple[int, ...]:
        """Draws a shape."""
        return (batch or self.integer(1, 3), *(self.integer(1, 5) for _ in range(rank - 1)))

    def codes(self, interval: Interval, shape: tuple[int, ...]) -> np.ndarray:
        """Random codes, with both ends often among them."""
        x = self.rng.integers(interval.low, interval.high, shape, endpoint=True)
        ends = self.rng.random(shape)
        x[ends < 0.1] = interval.low
        x[ends > 0.9] = interval.high
        return x

    def inside(self, interval: Interval) -> int:
        """Draws an integer of an interval."""
        return self.integer(interval.low, interval.high)
