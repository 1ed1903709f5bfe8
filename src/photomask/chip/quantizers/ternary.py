"""Quantizes small weights to 0, and the others to their sign and one magnitude."""

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
"""The threshold divided by the mean magnitude; it suits normal and uniform weights alike."""


class LargeMean(Moments):
    """Chooses the range `+-E[|x| : |x| > 0.7 E|x|]`, the mean of the large magnitudes."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Tensor] = []
        """The observed values, `[R, N]` each. A weight is observed once, so keeping it is cheap."""

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Updates the moments, and keeps the values of a batch."""
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
    """Quantizes weights to three values, as in ternary weight networks.

        delta = 0.7 * E|w|,   scale = E[|w| : |w| > delta]
        code  = sign(w) where |w| > delta, else 0
        d value / d w = 1

    Codes are the 2-bit signed integers -1, 0 and 1. The scale has the least squared error for the
    threshold. In training mode both follow the weight.

    Args:
        bits: 2, the width of the codes; there are 3 levels.
        options: the options of `Quantizer`. The granularity is per channel by default; the paper
            has one scale per layer.

    Attributes:
        threshold: `delta`, in the shape of `scale`.

    Raises:
        RecipeError: other bits, affine or unsigned codes, or an observer were asked for.

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
        """Registers the scale, the zero point and the threshold."""
        super().register_scale()
        self.register_buffer("threshold", torch.zeros(()))

    def fit(self) -> None:
        """Decides the scale and the threshold."""
        super().fit()
        self.threshold = self.observer.thresholds().reshape(self.scale.shape)

    def rescale(self, factor: Tensor) -> None:
        """Multiplies the scale and the threshold, so that scaled values keep their codes."""
        super().rescale(factor)
        self.threshold = self.threshold * factor.to(self.threshold)

    def _decide_format(self) -> IntFormat:
        return IntFormat(bits=2, signed=True)

    def quantize(self, x: Tensor) -> Tensor:
        """Returns the sign of values whose magnitude exceeds the threshold, and 0 for others."""
        codes, values = self.codes, at_least_float32(x)
        large = values.abs() > self.granularity.align(self.threshold, x)
        return (values.sign() * large).clamp(codes.low, codes.high)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))` with the gradient of the class's equation."""
        return stand_in(super().forward(x.detach()), x)
