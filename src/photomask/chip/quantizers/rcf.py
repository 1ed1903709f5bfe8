"""RCF learns a clipping value, and learns it from values inside the range as well."""

from typing import Any

from torch import Tensor

from photomask.chip.observers import MSE
from photomask.chip.quantizers.clipping import LearnedClip


class RCF(LearnedClip):
    """Quantizes uniformly with a reparameterized clipping function.

        value = alpha * P(clamp(x / alpha, -1, 1)),   P: rounding to the nearest level
        d value / d alpha = P(x / alpha) - x / alpha  inside the range;  sign(x) outside
        d value / d x     = 1  inside the range;  0 outside

    `alpha` is the value of the largest code, so `scale = alpha / code_high`. Signed codes that are
    not narrow have one more code below 0; for values below the range, the gradient of `alpha` is
    then `code_low / code_high` in place of the sign.

    It differs from the source in that weights are not normalized to mean 0 and standard deviation 1
    first. Batch norms are folded into the weights here, and the codes must follow from the stored
    weight. The clip starts from the range of the least squared error. `APoT` uses the levels of the
    paper.

    Attributes:
        clip: the parameter for `alpha`.

    Raises:
        RecipeError: affine codes, scales per group or power-of-two scales were asked for.

    Source: Li et al. 2020, equations 6 and 7, arXiv:1909.13144.
    """

    def __init__(self, bits: int = 8, **options: Any):
        super().__init__(bits, **options)
        if options.get("observer") is None:
            self.observer = MSE()

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))` with the gradient of these two functions."""
        return self.dequantize(self.quantize(x))
