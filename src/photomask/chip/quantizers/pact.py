"""PACT: the clipping value of activations is learned."""

from typing import Any

import torch
from torch import Tensor

from photomask.chip.observers import Percentile
from photomask.chip.quantizers.base import at_least_float32
from photomask.chip.quantizers.clipping import LearnedClip
from photomask.chip.quantizers.straight_through import at_least, stand_in


class PACT(LearnedClip):
    """Parameterized clipping activation.

        y = clamp(x, 0, alpha),   value = round(y * (2**bits - 1) / alpha) * alpha / (2**bits - 1)
        d value / d alpha = 1  where x >= alpha;  0 elsewhere
        d value / d x     = 1  where 0 <= x < alpha;  0 elsewhere

    Where values below 0 were seen, or `signed=True`, codes are signed: `y` is clipped at the
    lowest code as well, where the gradient of `alpha` is `code_low / code_high`, and that of `x` 0.

    It starts from the 99.9th percentile of what was seen, the paper from a number given by hand.
    The paper adds `lambda * alpha**2` to the loss: that is weight decay of `clip`.

    Attributes:
        clip: parameter, `alpha`.

    Raises:
        RecipeError: affine codes, per group, or power-of-two scales.

    Source: Choi et al. 2018, equations 1 to 3, arXiv:1805.06085.
    """

    def __init__(self, bits: int = 8, **options: Any):
        super().__init__(bits, **options)
        if options.get("observer") is None:
            self.observer = Percentile(99.9)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))`, with the gradients above."""
        with torch.no_grad():
            value = self.dequantize(self.quantize(x))
        if not torch.is_grad_enabled():
            return value
        codes = self.codes
        alpha = self.granularity.align(at_least(self.clip, self.smallest_clip), x)
        lowest = alpha * (codes.low / codes.high)
        # Each value's gradient goes to what limits it: the clip, its lower end, or nothing. With
        # unsigned codes the lower end is 0, and a value of exactly 0 is inside.
        below = x <= lowest if codes.low else x < 0
        clipped = torch.where(x >= alpha, alpha, torch.where(below, lowest, at_least_float32(x)))
        return stand_in(value, clipped)
