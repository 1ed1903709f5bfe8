"""Quantizes weights to their sign and one magnitude per channel."""

from typing import Any

import torch
from torch import Tensor

from photomask.chip.formats import IntFormat
from photomask.chip.observers.grid import Grid
from photomask.chip.observers.moments import Moments
from photomask.chip.quantizers.base import at_least_float32
from photomask.chip.quantizers.granularity import PerChannel
from photomask.chip.quantizers.refitting import Refitting, narrow_options
from photomask.chip.quantizers.straight_through import stand_in
from photomask.errors import RecipeError


class MeanSize(Moments):
    """Chooses the range `+-E|x|`, so that codes -1 and 1 represent the mean magnitude."""

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the range of each row."""
        size = self.moments()[1].to(low)
        return -size, size


class Binary(Refitting):
    """Quantizes weights to two values, with the scale of the least squared error.

        code = 1 where w >= 0, else -1,   scale = E|w|
        d value / d w = 1 / N + scale * [|w| <= 1]

    `N` is the number of weights that share the scale. Codes are 2-bit signed integers that are
    never 0. In training mode the scale follows the weight.

    The quantizer is for weights only: it has no code for 0, so activations could not be padded. The
    paper's binary activations are not supported.

    Args:
        bits: 2, the width of the codes; there are 2 levels.
        options: the options of `Quantizer`; the granularity is per channel by default.

    Raises:
        RecipeError: other bits, affine or unsigned codes, or an observer were asked for.

    Source: Rastegari et al. 2016 (XNOR-Net), equations 6, 7 and section 3.1, arXiv:1603.05279.
    """

    waived_laws = frozenset({"zero"})

    def __init__(self, bits: int = 2, **options: Any):
        refuse_other_levels("Binary", bits, options)
        options = {"granularity": PerChannel(), **options}
        super().__init__(bits, **narrow_options("Binary", options))
        self.observer = MeanSize()

    def _decide_format(self) -> IntFormat:
        return IntFormat(bits=2, signed=True)

    def quantize(self, x: Tensor) -> Tensor:
        """Returns the sign of each value as 1 or -1; the sign of 0 is 1."""
        codes, values = self.codes, at_least_float32(x)
        return torch.full_like(values, codes.high).where(values >= 0, codes.low)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))` with the gradient of the class's equation."""
        value = super().forward(x.detach())
        if not torch.is_grad_enabled():
            return value
        share = self.scale.numel() / x.numel()
        slope = share + self.scale_for(x) * (x.detach().abs() <= 1)
        return stand_in(value, x * slope)


def refuse_other_levels(name: str, bits: int, options: dict[str, Any]) -> None:
    """Refuses options that a quantizer with fixed levels does not have.

    Raises:
        RecipeError: other bits than 2, or an observer, were asked for.
    """
    if bits != 2:
        raise RecipeError(f"{name} has codes of 2 bits, found bits={bits}")
    if options.get("observer") is not None:
        raise RecipeError(f"{name} chooses its scale itself, so it takes no observer; remove it")
