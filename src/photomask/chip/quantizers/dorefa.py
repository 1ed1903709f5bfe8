"""DoReFa: weights through a hyperbolic tangent, activations inside the unit interval."""

from typing import Any

import torch
from torch import Tensor

from photomask.chip.quantizers.base import Quantizer, at_least_float32
from photomask.chip.quantizers.refitting import Refitting, narrow_options
from photomask.chip.quantizers.straight_through import stand_in
from photomask.errors import RecipeError


class DoReFa(Refitting):
    """DoReFa weights.

        m = max|w|,   scale = m / n,   n = 2**(bits-1) - 1
        code = round(n * tanh(w) / tanh(m))
        d value / d w = m * (1 - tanh(w)**2) / tanh(m)

    In training mode `m` follows the weight; it counts as a constant for the gradient.

    Differs from the source in two ways. Its codes are `2 k - (2**bits - 1)`: odd numbers, without 0
    and one bit wider than they need; these here are symmetric around 0. And its values fill
    `[-1, 1]`, with batch norm to restore the size; that is folded here, so the largest weight
    keeps its value.

    The tangent bends large weights, so that a value which a code stands for need not have that
    code: the law of the fixed point is waived.

    Args:
        bits: 2 to 16.
        options: as for `Quantizer`; codes are narrow, the observer is the method's own.

    Raises:
        RecipeError: affine or unsigned codes, or an observer.

    Source: Zhou et al. 2016, equations 8 to 10, arXiv:1606.06160.
    """

    waived_laws = frozenset({"fixed point"})

    def __init__(self, bits: int = 4, **options: Any):
        if options.get("observer") is not None:
            raise RecipeError("DoReFa scales by the largest weight; leave out the observer")
        super().__init__(bits, **narrow_options("DoReFa", options))

    @property
    def can_rescale(self) -> bool:
        """False: the tangent bends values by their size."""
        return False

    def quantize(self, x: Tensor) -> Tensor:
        """Returns `round(n * tanh(x) / tanh(m))`, inside the codes."""
        codes = self.codes
        bent = self._bend(at_least_float32(x)) / self.scale_for(x)
        return bent.round().clamp(codes.low, codes.high)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))`, with the gradient above."""
        value = super().forward(x.detach())
        return stand_in(value, self._bend(x)) if torch.is_grad_enabled() else value

    def _bend(self, x: Tensor) -> Tensor:
        """Returns `m * tanh(x) / tanh(m)`."""
        limit = self.scale_for(x) * self.codes.high
        return torch.tanh(x) * (limit / torch.tanh(limit))


class DoReFaActivation(Quantizer):
    """DoReFa activations: the range is always `[0, 1]`.

        value = round((2**bits - 1) * clamp(x, 0, 1)) / (2**bits - 1)
        d value / d x = 1 where 0 <= x <= 1, else 0

    The network has to learn to live inside it: nothing but the sign is taken from data. Where
    values below 0 were seen, or `signed=True`, codes are signed and the range is `[-1, 1]`.

    Raises:
        RecipeError: affine codes, or an observer.

    Source: Zhou et al. 2016, equation 11, arXiv:1606.06160.
    """

    def __init__(self, bits: int = 4, **options: Any):
        if not options.get("symmetric", True) or options.get("observer") is not None:
            raise RecipeError(
                "DoReFaActivation has a fixed range with zero point 0: neither affine codes nor "
                "an observer"
            )
        super().__init__(bits, **options)

    @property
    def saw_only_zero(self) -> bool:
        """False: the scale is the method's own, whatever was seen."""
        return False

    def fit(self) -> None:
        """Decides the sign from what was observed; the largest code stands for 1."""
        super().fit()
        scale = torch.full_like(self.scale, 1 / self.codes.high)
        self.set_parameters(self.format, scale, self.zero_point)
