"""Chooses ranges from moments, which are means over all values."""

import torch
from torch import Tensor

from photomask.chip.observers.base import Observer
from photomask.chip.observers.grid import Grid
from photomask.errors import QuantizerError


class Moments(Observer):
    """Base class of observers that need only means of the values.

    Sums are kept in float64, so the order and the batching of the values hardly matter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        """The number of values of a row so far."""
        self.sums: Tensor | None = None
        """The sums of `x`, `|x|` and `x**2` of each row, `[3, R]` float64."""

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Adds the sums of a batch."""
        parts = (rows, rows.abs(), rows.square())
        sums = torch.stack([part.sum(dim=1, dtype=torch.float64) for part in parts])
        self.sums = sums if self.sums is None else self.sums + sums.to(self.sums.device)
        self.count += rows.shape[1]

    def moments(self) -> Tensor:
        """Returns the means of `x`, `|x|` and `x**2` of each row, `[3, R]` float64.

        Raises:
            QuantizerError: nothing was observed.
        """
        if self.sums is None:
            raise QuantizerError(
                f"{type(self).__name__} has observed no values; call calibrate(prepared, data)"
            )
        return self.sums / self.count


class MeanMagnitude(Moments):
    """Chooses the range whose scale is `2 E|x| / sqrt(Q_P)`, from which LSQ starts to learn.

    `Q_P` is the largest code or, on an affine grid, the number of codes minus one. The range is
    never wider than the observed one. From 4 bits on, the formula gives a wider range than a normal
    distribution needs.

    Source: Esser et al. 2020, section 2.1, arXiv:1902.08153.
    """

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the range of each row."""
        magnitude = self.moments()[1].to(low)
        codes = grid.codes
        if grid.symmetric:
            reach = 2 * magnitude * codes.high**0.5
            return torch.maximum(low, -reach), torch.minimum(high, reach)
        low, high = low.clamp(max=0), high.clamp(min=0)
        wanted = 2 * magnitude * (codes.high - codes.low) ** 0.5
        shrink = (wanted / (high - low).clamp(min=torch.finfo(low.dtype).tiny)).clamp(max=1)
        return low * shrink, high * shrink


class ThreeSigma(Moments):
    """Chooses three standard deviations around the mean, `[mu - 3 sigma, mu + 3 sigma]`.

    Source: Bhalgat et al. 2020 (LSQ+), section 3.2, arXiv:2004.09576; Jain et al. 2019 (TQT),
    section 4.2, arXiv:1903.08066.
    """

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the range of each row."""
        mean, _, square = self.moments()
        sigma = (square - mean.square()).clamp(min=0).sqrt()
        return (mean - 3 * sigma).to(low), (mean + 3 * sigma).to(low)
