"""PACT learns the value at which activations are clipped."""

from typing import Any

import torch
from torch import Tensor

from photomask.chip.observers import Percentile
from photomask.chip.quantizers.base import at_least_float32
from photomask.chip.quantizers.clipping import LearnedClip
from photomask.chip.quantizers.straight_through import at_least, stand_in


class PACT(LearnedClip):
    """Quantizes activations that are clipped at a learned value.

        y = clamp(x, 0, alpha),   value = round(y * (2**bits - 1) / alpha) * alpha / (2**bits - 1)
        d value / d alpha = 1  where x >= alpha;  0 elsewhere
        d value / d x     = 1  where 0 <= x < alpha;  0 elsewhere

    Where values below 0 were observed, or with `signed=True`, codes are signed. Then `y` is also
    clipped at the value of the lowest code, where the gradient of `alpha` is
    `code_low / code_high` and that of `x` is 0.

    The clip starts from the 99.9th percentile of the observed values; the paper starts from a
    number that is given by hand. The paper adds `lambda * alpha**2` to the loss, which is a weight
    decay of `clip`.

    Attributes:
        clip: the parameter for `alpha`.

    Raises:
        RecipeError: affine codes, scales per group or power-of-two scales were asked for.

    Source: Choi et al. 2018, equations 1 to 3, arXiv:1805.06085.
    """

    def __init__(self, bits: int = 8, **options: Any):
        super().__init__(bits, **options)
        if options.get("observer") is None:
            self.observer = Percentile(99.9)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))` with the gradients of the class's equations."""
        with torch.no_grad():
            value = self.dequantize(self.quantize(x))
        if not torch.is_grad_enabled():
            return value
        codes = self.codes
        alpha = self.granularity.align(at_least(self.clip, self.smallest_clip), x)
        lowest = alpha * (codes.low / codes.high)
        # The gradient of a clipped value goes to the limit that clips it, and that of any other
        # value to `x`. With unsigned codes the lower limit is 0, and 0 itself counts as inside.
        below = x <= lowest if codes.low else x < 0
        clipped = torch.where(x >= alpha, alpha, torch.where(below, lowest, at_least_float32(x)))
        return stand_in(value, clipped)
