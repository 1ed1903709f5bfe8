"""Defines the base class of weight quantizers whose scale follows the weight in training."""

from typing import Any

import torch
from torch import Tensor

from photomask.chip.quantizers.base import Quantizer
from photomask.errors import RecipeError


def narrow_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of a quantizer whose codes are always narrow.

    Raises:
        RecipeError: `narrow=False` was asked for.
    """
    if options.get("narrow") is False:
        raise RecipeError(
            f"the codes of {name} are balanced around 0, so narrow cannot be False; remove it"
        )
    return {**options, "narrow": True}


class Refitting(Quantizer):
    """Base class of weight quantizers whose scale is a statistic of the current weight.

    In training mode every call fits the scale to the given weight. Evaluation mode and conversion
    use the scale of the last such call. The scale is positive and never learned. The class is for
    weights only, because the codes of activations would depend on the batch.
    """

    weights_only = True

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))`, after fitting the scale to `x` in training mode.

        Raises:
            DataError: the weight holds NaN or infinity, because training has diverged.
        """
        if self.training:
            self.refit(x)
        return super().forward(x)

    @torch.no_grad()
    def refit(self, x: Tensor) -> None:
        """Fits the scale to `x` alone, and forgets earlier observations."""
        self.observer = type(self.observer)()
        self.observe(x)
        self.fit()
