"""SAWB computes the clipping value of weights from two of their moments."""

from typing import Any

import torch
from torch import Tensor

from photomask.chip.observers.grid import Grid
from photomask.chip.observers.moments import Moments
from photomask.chip.quantizers.refitting import Refitting, narrow_options
from photomask.errors import RecipeError

COEFFICIENTS = {
    2: (2.504, 1.585),
    3: (7.013, 6.367),
    4: (11.84, 11.81),
    5: (16.65, 17.37),
    6: (21.49, 23.05),
    7: (26.33, 28.76),
    8: (31.25, 34.58),
}
"""For each width in bits, `c1` and `c2` for codes `-(2**(bits-1) - 1) .. 2**(bits-1) - 1`."""


class StatisticsAware(Moments):
    """Chooses the range `+-(c1 * sqrt(E[x**2]) - c2 * E|x|)`; `SAWB` explains `c1` and `c2`."""

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the range of each row."""
        c1, c2 = COEFFICIENTS[min(grid.format.bits, max(COEFFICIENTS))]
        _, magnitude, square = (moment.to(low) for moment in self.moments())
        clip = c1 * square.sqrt() - c2 * magnitude
        # The coefficients fit the usual distributions of weights. For another distribution the
        # result can be 0 or negative, and the largest magnitude is used.
        largest = torch.maximum(high, -low)
        clip = torch.where(clip > 0, torch.minimum(clip, largest), largest)
        # The range must not be wider than the observed values, at either end.
        return torch.maximum(low, -clip), torch.minimum(high, clip)


class SAWB(Refitting):
    """Quantizes weights with statistics-aware weight binning.

        alpha = c1 * sqrt(E[w**2]) - c2 * E|w|,   scale = alpha / (2**(bits-1) - 1)
        code  = clamp(round(w / scale)),   d value / d w = 1 where |w| <= alpha, else 0

    In training mode `alpha` follows the weight at every call. `c1` and `c2` are a least-squares
    fit to the `alpha` of the least squared error, over six densities (normal, Laplace, logistic,
    uniform, triangular, von Mises). That is the method of the paper, but the coefficients are our
    own. The grids of the paper (for 2 bits `+-alpha, +-alpha/3`) have no 0, and are no integers of
    that width; for them the same fit gives the published 3.2 and 2.1. The range is never wider than
    the largest weight.

    Args:
        bits: the width of the codes, 2 to 8.
        options: the options of `Quantizer` except the observer; codes are narrow.

    Raises:
        RecipeError: more than 8 bits, affine or unsigned codes, or an observer were asked for.

    Source: Choi et al. 2018, section 3, arXiv:1807.06964.
    """

    def __init__(self, bits: int = 4, **options: Any):
        if options.get("observer") is not None:
            raise RecipeError("SAWB chooses the range itself, so it takes no observer; remove it")
        super().__init__(bits, **narrow_options("SAWB", options))
        if bits not in COEFFICIENTS:
            raise RecipeError(f"SAWB needs 2 to 8 bits, found {bits}")
        self.observer = StatisticsAware()
