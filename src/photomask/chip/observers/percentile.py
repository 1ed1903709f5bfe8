"""Chooses a range from quantiles, so that a fixed share of the values may saturate."""

import torch
from torch import Tensor

from photomask.chip.observers.grid import Grid
from photomask.chip.observers.histogram import DistributionObserver
from photomask.errors import RecipeError


class Percentile(DistributionObserver):
    """Chooses the range between two quantiles.

        low = quantile(x, 1 - percent / 100),   high = quantile(x, percent / 100)

    Quantiles of an activation are interpolated inside a histogram bin. Those of a weight's channels
    are exact, with interpolation between neighbouring values.

    Law: the order and the batching of the values do not matter.

    Args:
        percent: the percentile of the upper end, in `(50, 100]`; 100 is min-max.

    Raises:
        RecipeError: `percent` is outside `(50, 100]`.

    Source: Wu et al. 2020, section 3.2, arXiv:2004.09602.
    """

    def __init__(self, percent: float = 99.99):
        super().__init__()
        if not 50 < percent <= 100:
            raise RecipeError(f"percent must be in (50, 100], found {percent}")
        self.percent = percent

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the two quantiles of each row."""
        upper = self.percent / 100
        if self.rows:
            ordered = self.values().sort(dim=1).values
            return _quantile(ordered, 1 - upper), _quantile(ordered, upper)
        edges, counts = self.histogram.distribution()
        return (
            _quantile_of_counts(edges, counts, 1 - upper),
            _quantile_of_counts(edges, counts, upper),
        )

    def __str__(self) -> str:
        return f"Percentile({self.percent:g})"


def _quantile(ordered: Tensor, fraction: float) -> Tensor:
    """Returns a quantile of sorted rows `[R, N]`, interpolated between the two nearest values."""
    position = fraction * (ordered.shape[1] - 1)
    below = min(int(position), ordered.shape[1] - 1)
    above = min(below + 1, ordered.shape[1] - 1)
    return ordered[:, below].lerp(ordered[:, above], position - below)


def _quantile_of_counts(edges: Tensor, counts: Tensor, fraction: float) -> Tensor:
    """Returns a quantile of a histogram, `[1]`, interpolated linearly inside its bin."""
    cumulative = counts.cumsum(0)
    wanted = (fraction * cumulative[-1]).reshape(1)
    index = torch.searchsorted(cumulative, wanted).clamp(max=counts.numel() - 1)
    inside = (wanted - (cumulative[index] - counts[index])) / counts[index].clamp(min=1)
    return edges[index] + inside.clamp(0, 1) * (edges[index + 1] - edges[index])
