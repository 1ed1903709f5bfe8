"""RCF: a clipping value that also learns from the values inside the range."""

from typing import Any

from torch import Tensor

from photomask.chip.observers import MSE
from photomask.chip.quantizers.clipping import LearnedClip


class RCF(LearnedClip):
    """Reparameterized clipping function, on uniform levels.

        value = alpha * P(clamp(x / alpha, -1, 1)),   P: rounding to the nearest level
        d value / d alpha = P(x / alpha) - x / alpha  inside the range;  sign(x) outside
        d value / d x     = 1  inside the range;  0 outside

    `alpha` is the value of the largest code, `scale = alpha / code_high`; signed codes that are not
    narrow have one more below, whose share `code_low / code_high` takes the place of the sign.

    Differs from the source: weights are not normalized to mean 0 and deviation 1 first. Batch norms
    are folded into them here, and codes must follow from the stored weight. It starts from the
    range of least squared error. `APoT` has the paper's levels.

    Attributes:
        clip: parameter, `alpha`.

    Raises:
        RecipeError: affine codes, per group, or power-of-two scales.

    Source: Li et al. 2020, equations 6 and 7, arXiv:1909.13144.
    """

    def __init__(self, bits: int = 8, **options: Any):
        super().__init__(bits, **options)
        if options.get("observer") is None:
            self.observer = MSE()

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))`; the gradient is what follows from the two."""
        return self.dequantize(self.quantize(x))
