"""Counts values in a streaming histogram whose result does not depend on their order."""

import math

import torch
from torch import Tensor

from photomask.chip.observers.base import Observer

BINS = 4096
"""The number of bins. At least half are in use once two different values were counted."""
_CHUNK = 1 << 20  # values counted at a time, so that the temporary buffers stay in the cache
_SMALLEST_EXPONENT = -100


class Histogram:
    """Counts values in bins of width `2**exponent`, of which one starts at 0.

    Bin `i` counts the values of `[i, i + 1) * 2**exponent`. The exponent is the smallest for which
    `BINS` bins reach from `min(0, low)` to `max(0, high)`. When the range grows, the width doubles,
    and the neighbours `2j` and `2j + 1` merge into `j`. This merging is exact, so the histogram of
    the same values is the same for any order and any batching.
    """

    def __init__(self) -> None:
        self.exponent = _SMALLEST_EXPONENT
        self.first = 0
        """The index `i` of the first bin."""
        self.counts: Tensor | None = None
        """The counts of the bins, `[BINS]` int64; None before the first value."""
        self._low = self._high = 0.0

    def add(self, values: Tensor, low: float, high: float) -> None:
        """Counts values.

        Args:
            values: finite values, `[N]` float32.
            low: the minimum of the values.
            high: the maximum of the values.
        """
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._widen()
        counts = torch.zeros(BINS, dtype=torch.int64, device=values.device)
        # Multiplying a float by a power of two is exact (unless the result is below 2**-126 bins)
        # and `floor` is exact, so no value is counted in a neighbouring bin.
        bins_per_unit = math.ldexp(1.0, -self.exponent)
        # A GPU counts larger chunks; its temporary memory is that of one more activation.
        for chunk in values.split(_CHUNK if values.device.type == "cpu" else 1 << 26):
            index = (chunk * bins_per_unit).floor_().sub_(self.first).to(torch.int64)
            counts += torch.bincount(index, minlength=BINS)
        self.counts = counts if self.counts is None else self.counts + counts.to(self.counts)

    def distribution(self) -> tuple[Tensor, Tensor]:
        """Returns the bin edges `[B + 1]` in ascending order and the counts `[B]`, both float64.

        Empty bins outside the observed range, widened to include 0, are left out.
        """
        counts = self.counts if self.counts is not None else torch.zeros(BINS, dtype=torch.int64)
        width = math.ldexp(1.0, self.exponent)
        used = math.floor(self._high / width) - self.first + 1
        edges = torch.arange(used + 1, dtype=torch.float64, device=counts.device) + self.first
        return edges * width, counts[:used].double()

    def _widen(self) -> None:
        """Doubles the width until the range fits, and moves the counts."""
        exponent = self.exponent
        # The loop starts from a width that is surely too small.
        if span := max(self._high, -self._low):
            exponent = max(exponent, math.frexp(span)[1] - BINS.bit_length())
        while _bin_of(self._high, exponent) - _bin_of(self._low, exponent) >= BINS:
            exponent += 1
        first = _bin_of(self._low, exponent)
        if self.counts is not None and (exponent, first) != (self.exponent, self.first):
            old = torch.arange(BINS, device=self.counts.device) + self.first
            # Bins beyond the range are empty, and their index may be outside the new histogram.
            target = ((old >> (exponent - self.exponent)) - first).clamp(0, BINS - 1)
            self.counts = torch.zeros_like(self.counts).index_add_(0, target, self.counts)
        self.exponent, self.first = exponent, first


class DistributionObserver(Observer):
    """Base class of observers that need the whole distribution of the values.

    The values of one row (an activation) are counted in a histogram. The values of several rows
    (the channels or groups of a weight) are kept, because they are few and observed once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.histogram = Histogram()
        self.rows: list[Tensor] = []
        """The batches of several rows, `[R, N]` float32 each."""

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Counts the values of one row, or keeps the values of several rows."""
        if rows.shape[0] == 1:
            self.histogram.add(rows[0], low.item(), high.item())
        else:
            self.rows.append(rows.clone())

    def values(self) -> Tensor:
        """Returns all kept values as one `[R, N]` tensor."""
        if len(self.rows) > 1:
            first = self.rows[0]
            self.rows = [torch.cat([batch.to(first.device) for batch in self.rows], dim=1)]
        return self.rows[0]


def _bin_of(value: float, exponent: int) -> int:
    """Returns the index of the bin that holds `value`."""
    return math.floor(math.ldexp(value, -exponent))
