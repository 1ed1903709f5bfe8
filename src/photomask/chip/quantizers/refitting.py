"""The base of quantizers of weights that follow their weight while it is trained."""

from typing import Any

import torch
from torch import Tensor

from photomask.chip.quantizers.base import Quantizer
from photomask.errors import RecipeError


def narrow_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of a quantizer whose codes are always narrow.

    Raises:
        RecipeError: codes that are not were asked for.
    """
    if options.get("narrow") is False:
        raise RecipeError(f"the codes of {name} are balanced around 0: narrow cannot be False")
    return {**options, "narrow": True}


class Refitting(Quantizer):
    """Base of quantizers of weights whose scale is a function of the weight as it is.

    In training mode every call fits anew to the weight that it gets; in evaluation mode, and in
    what is converted, the scale of the last call stays. The scale is a positive statistic, never
    learned. For weights alone: on activations the result would depend on the batch.
    """

    weights_only = True

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))`, fitted to `x` first in training mode.

        Raises:
            DataError: the weight holds NaN or infinity: training has diverged.
        """
        if self.training:
            self.refit(x)
        return super().forward(x)

    @torch.no_grad()
    def refit(self, x: Tensor) -> None:
        """Fits to `x`, and to nothing that was observed before."""
        self.observer = type(self.observer)()
        self.observe(x)
        self.fit()
