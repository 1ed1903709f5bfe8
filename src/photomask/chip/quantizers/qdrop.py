"""QDrop leaves out the quantization of random activation elements while a model learns."""

from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.granularity import PerTensor
from photomask.errors import RecipeError


class _Drop(torch.autograd.Function):
    """Returns quantized values where `kept` is True, and the values themselves elsewhere."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, kept: Tensor | None, low: int, high: int
    ) -> Tensor:
        ctx.save_for_backward(x, scale, kept)
        ctx.limits = low, high
        value = (x / scale).round_().clamp_(low, high).mul_(scale)
        return value if kept is None else torch.where(kept, value, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, kept = ctx.saved_tensors
        low, high = ctx.limits
        to_x = to_scale = None
        ratio = x / scale
        gradient = gradients[0]
        quantized = gradient if kept is None else gradient * kept
        inside = (ratio >= low) & (ratio <= high)
        if ctx.needs_input_grad[0]:
            passes = inside if kept is None else inside | ~kept
            to_x = gradient * passes
        if ctx.needs_input_grad[1]:
            slope = ratio.round().clamp_(low, high).sub_(ratio.mul_(inside))
            to_scale = slope.mul_(quantized).sum()
        return to_x, to_scale, None, None, None


def drop_quantization(
    x: Tensor, scale: Tensor, kept: Tensor | None, *, low: int, high: int
) -> Tensor:
    """Quantizes the elements for which `kept` is True, and leaves the others unchanged.

        value = clamp(round(x / scale), low, high) * scale

    The gradient to `x` is 1 inside the range and for elements that are not quantized, and 0
    elsewhere. The gradient to the scale is that of LSQ, summed over the quantized elements:
    `round(x / scale) - x / scale` inside the range, and the end of the range outside it.

    Args:
        x: values in any shape.
        scale: the scale, one number.
        kept: bool in the shape of `x`; None quantizes all elements.
        low: the lowest code minus the zero point.
        high: the highest code minus the zero point.

    Source: Wei et al. 2022, equation 7, arXiv:2203.05740; Esser et al. 2020, equation 3,
    arXiv:1902.08153.
    """
    return _Drop.apply(x, scale, kept, low, high)  # pyright: ignore[reportReturnType]


class QDrop(Quantizer):
    """Quantizes activations uniformly, and in training mode only some elements at random.

    In training mode each element is quantized with the given probability and unchanged otherwise;
    in evaluation mode all are quantized. The layers that learn meanwhile do not adapt to one
    pattern of rounding errors. The scale is learned (LSQ), unless it is a power of two.

    Args:
        bits: the width of the codes, 2 to 16.
        probability: the probability that an element is quantized in training mode, above 0 and at
            most 1.
        options: the options of `Quantizer`.

    Raises:
        RecipeError: the probability is out of range, or the granularity is not per tensor.

    Source: Wei et al. 2022, section 4.2, arXiv:2203.05740.
    """

    soft_training = True

    def __init__(self, bits: int = 8, *, probability: float = 0.5, **options: Any):
        super().__init__(bits, **options)
        if not 0 < probability <= 1:
            raise RecipeError(f"probability must be above 0 and at most 1, found {probability}")
        if not isinstance(self.granularity, PerTensor):
            raise RecipeError(
                f"QDrop quantizes activations per tensor, found {self.granularity}; use PerTensor()"
            )
        self.probability = probability
        if not self.power_of_two:
            del self.scale
            self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Returns quantized values; in training mode some elements are returned unquantized."""
        if not self.training:
            return super().forward(x)
        codes, zero_point = self.codes, int(self.zero_point)
        kept = torch.rand_like(x) < self.probability
        low, high = codes.low - zero_point, codes.high - zero_point
        return drop_quantization(x, self.scale, kept, low=low, high=high)
