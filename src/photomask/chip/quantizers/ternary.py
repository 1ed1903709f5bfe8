"""Ternary weights: small ones are 0, the others have one size."""

from typing import Any

import torch
from torch import Tensor

from photomask.chip.formats import IntFormat
from photomask.chip.observers.grid import Grid
from photomask.chip.observers.moments import Moments
from photomask.chip.quantizers.base import at_least_float32
from photomask.chip.quantizers.binary import refuse_other_levels
from photomask.chip.quantizers.granularity import PerChannel
from photomask.chip.quantizers.refitting import Refitting, narrow_options
from photomask.chip.quantizers.straight_through import stand_in

THRESHOLD_SHARE = 0.7
"""The threshold over the mean magnitude; best for normal and uniform weights alike."""


class LargeMean(Moments):
    """The range `+-E[|x| : |x| > 0.7 E|x|]`, the mean of the magnitudes that are not small."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Tensor] = []
        """What was observed, `[R, N]` each: weights, which come once."""

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Keeps a batch."""
        super().update(rows, low, high)
        self.rows.append(rows.clone())

    def thresholds(self) -> Tensor:
        """Returns `0.7 E|x|` of each row, `[R]` float32."""
        return (THRESHOLD_SHARE * self.moments()[1]).float()

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the range of each row."""
        magnitude = torch.cat(self.rows, dim=1).abs()
        large = magnitude > self.thresholds()[:, None]
        size = (magnitude * large).sum(dim=1) / large.sum(dim=1).clamp(min=1)
        return -size, size


class Ternary(Refitting):
    """Ternary weight networks.

        delta = 0.7 * E|w|,   scale = E[|w| : |w| > delta]
        code  = sign(w) where |w| > delta, else 0
        d value / d w = 1

    Codes are 2-bit signed integers -1, 0 and 1. The scale is the best one for the threshold; in
    training mode both follow the weight.

    Args:
        bits: 2, the width of the codes; there are 3 levels.
        options: as for `Quantizer`; per channel if left out, the paper has one scale a layer.

    Attributes:
        threshold: `delta`, the shape of `scale`.

    Raises:
        RecipeError: other bits, affine or unsigned codes, or an observer.

    Source: Li et al. 2016, equations 3, 5 and 6, arXiv:1605.04711.
    """

    threshold: Tensor
    observer: LargeMean

    def __init__(self, bits: int = 2, **options: Any):
        refuse_other_levels("Ternary", bits, options)
        super().__init__(
            bits, **{"granularity": PerChannel(), **narrow_options("Ternary", options)}
        )
        self.observer = LargeMean()

    def register_scale(self) -> None:
        """Registers the threshold too."""
        super().register_scale()
        self.register_buffer("threshold", torch.zeros(()))

    def fit(self) -> None:
        """Decides scale and threshold."""
        super().fit()
        self.threshold = self.observer.thresholds().reshape(self.scale.shape)

    def rescale(self, factor: Tensor) -> None:
        """Gives values multiplied by a factor the codes that they had: the threshold moves too."""
        super().rescale(factor)
        self.threshold = self.threshold * factor.to(self.threshold)

    def _decide_format(self) -> IntFormat:
        return IntFormat(bits=2, signed=True)

    def quantize(self, x: Tensor) -> Tensor:
        """Returns the sign of the values above the threshold, 0 for the others."""
        codes, values = self.codes, at_least_float32(x)
        large = values.abs() > self.granularity.align(self.threshold, x)
        return (values.sign() * large).clamp(codes.low, codes.high)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))`, with the gradient above."""
        return stand_in(super().forward(x.detach()), x)
