"""A streaming histogram whose result does not depend on the order of the data."""

import math

import torch
from torch import Tensor

from photomask.chip.observers.base import Observer

BINS = 4096
"""At least half of them are in use as soon as two different values were seen."""
_CHUNK = 1 << 20  # values counted at a time: the scratch buffers stay in the cache
_SMALLEST_EXPONENT = -100


class Histogram:
    """Counts of values in bins of width `2**exponent`, aligned on 0.

    Bin `i` counts the values of `[i, i + 1) * 2**exponent`. The exponent is the smallest for which
    `BINS` bins reach from `min(0, low)` to `max(0, high)`. When the range grows the width doubles,
    and neighbours `2j` and `2j + 1` merge into `j`: no count is ever moved by a guess, so any order
    and any batching of the same values end in the same histogram.
    """

    def __init__(self) -> None:
        self.exponent = _SMALLEST_EXPONENT
        self.first = 0
        """Index `i` of the first bin."""
        self.counts: Tensor | None = None
        """`[BINS]` int64."""
        self._low = self._high = 0.0

    def add(self, values: Tensor, low: float, high: float) -> None:
        """Counts values.

        Args:
            values: `[N]` float32, finite.
            low: their minimum.
            high: their maximum.
        """
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._widen()
        counts = torch.zeros(BINS, dtype=torch.int64, device=values.device)
        # A power of two scales a float exactly (unless the result is below 2**-126 of a bin) and
        # `floor` is exact, so no value can stray into a neighbouring bin.
        bins_per_unit = math.ldexp(1.0, -self.exponent)
        # A GPU counts all at once; its scratch memory is the price of one more activation.
        for chunk in values.split(_CHUNK if values.device.type == "cpu" else 1 << 26):
            index = (chunk * bins_per_unit).floor_().sub_(self.first).to(torch.int64)
            counts += torch.bincount(index, minlength=BINS)
        self.counts = counts if self.counts is None else self.counts + counts.to(self.counts)

    def distribution(self) -> tuple[Tensor, Tensor]:
        """Returns the bin edges `[B + 1]` in rising order and the counts `[B]`, both float64.

        Empty bins outside the range seen (widened to include 0) are left out.
        """
        counts = self.counts if self.counts is not None else torch.zeros(BINS, dtype=torch.int64)
        width = math.ldexp(1.0, self.exponent)
        used = math.floor(self._high / width) - self.first + 1
        edges = torch.arange(used + 1, dtype=torch.float64, device=counts.device) + self.first
        return edges * width, counts[:used].double()

    def _widen(self) -> None:
        """Doubles the width until the range fits, and moves the counts."""
        exponent = self.exponent
        if span := max(self._high, -self._low):  # 2**-BINS.bit_length() of it is surely too narrow
            exponent = max(exponent, math.frexp(span)[1] - BINS.bit_length())
        while _bin_of(self._high, exponent) - _bin_of(self._low, exponent) >= BINS:
            exponent += 1
        first = _bin_of(self._low, exponent)
        if self.counts is not None and (exponent, first) != (self.exponent, self.first):
            old = torch.arange(BINS, device=self.counts.device) + self.first
            # Bins beyond the range are empty, and may have no place among the new ones.
            target = ((old >> (exponent - self.exponent)) - first).clamp(0, BINS - 1)
            self.counts = torch.zeros_like(self.counts).index_add_(0, target, self.counts)
        self.exponent, self.first = exponent, first


class DistributionObserver(Observer):
    """Base of observers that look at the whole distribution, not at its extremes alone.

    One row (an activation) streams into a histogram. Several rows (the channels or groups of a
    weight) are few values that come once: they are kept as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.histogram = Histogram()
        self.rows: list[Tensor] = []
        """The batches of several rows, `[R, N]` float32 each."""

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Counts or keeps the values of a batch."""
        if rows.shape[0] == 1:
            self.histogram.add(rows[0], low.item(), high.item())
        else:
            self.rows.append(rows.clone())

    def values(self) -> Tensor:
        """Returns all the kept rows as one `[R, N]` tensor."""
        if len(self.rows) > 1:
            first = self.rows[0]
            self.rows = [torch.cat([batch.to(first.device) for batch in self.rows], dim=1)]
        return self.rows[0]


def _bin_of(value: float, exponent: int) -> int:
    """Returns the index of the bin that holds `value`."""
    return math.floor(math.ldexp(value, -exponent))
