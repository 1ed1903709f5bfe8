"""DoReFa quantizes weights through a hyperbolic tangent, and activations in a fixed range."""

from typing import Any

import torch
from torch import Tensor

from photomask.chip.quantizers.base import Quantizer, at_least_float32
from photomask.chip.quantizers.refitting import Refitting, narrow_options
from photomask.chip.quantizers.straight_through import stand_in
from photomask.errors import RecipeError


class DoReFa(Refitting):
    """Quantizes weights as DoReFa does.

        m = max|w|,   scale = m / n,   n = 2**(bits-1) - 1
        code = round(n * tanh(w) / tanh(m))
        d value / d w = m * (1 - tanh(w)**2) / tanh(m)

    In training mode `m` follows the weight; the gradient treats it as a constant.

    It differs from the source in two ways. The codes of the source are `2 k - (2**bits - 1)`, which
    are odd, never 0 and one bit wider than necessary; the codes here are symmetric around 0. The
    values of the source fill `[-1, 1]` and rely on a batch norm to restore the magnitude. Batch
    norms are folded here, so the largest weight keeps its value.

    The tangent compresses large weights, so quantizing the value of a code can give another code.
    The law of the fixed point is waived for that reason.

    Args:
        bits: the width of the codes, 2 to 16.
        options: the options of `Quantizer` except the observer; codes are narrow.

    Raises:
        RecipeError: affine or unsigned codes, or an observer were asked for.

    Source: Zhou et al. 2016, equations 8 to 10, arXiv:1606.06160.
    """

    waived_laws = frozenset({"fixed point"})

    def __init__(self, bits: int = 4, **options: Any):
        if options.get("observer") is not None:
            raise RecipeError(
                "DoReFa scales by the largest weight, so it takes no observer; remove it"
            )
        super().__init__(bits, **narrow_options("DoReFa", options))

    @property
    def can_rescale(self) -> bool:
        """False, because the codes depend on the magnitude of the values."""
        return False

    def quantize(self, x: Tensor) -> Tensor:
        """Returns `round(n * tanh(x) / tanh(m))`, clamped to the codes."""
        codes = self.codes
        bent = self._bend(at_least_float32(x)) / self.scale_for(x)
        return bent.round().clamp(codes.low, codes.high)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))` with the gradient of the class's equation."""
        value = super().forward(x.detach())
        return stand_in(value, self._bend(x)) if torch.is_grad_enabled() else value

    def _bend(self, x: Tensor) -> Tensor:
        """Returns `m * tanh(x) / tanh(m)`."""
        limit = self.scale_for(x) * self.codes.high
        return torch.tanh(x) * (limit / torch.tanh(limit))


class DoReFaActivation(Quantizer):
    """Quantizes activations as DoReFa does, in the fixed range `[0, 1]`.

        value = round((2**bits - 1) * clamp(x, 0, 1)) / (2**bits - 1)
        d value / d x = 1 where 0 <= x <= 1, else 0

    The network has to learn to stay inside the range, because calibration decides only the sign.
    Where values below 0 were observed, or with `signed=True`, codes are signed and the range is
    `[-1, 1]`.

    Raises:
        RecipeError: affine codes or an observer were asked for.

    Source: Zhou et al. 2016, equation 11, arXiv:1606.06160.
    """

    def __init__(self, bits: int = 4, **options: Any):
        if not options.get("symmetric", True) or options.get("observer") is not None:
            raise RecipeError(
                "DoReFaActivation has a fixed range and zero point 0, so it takes neither affine "
                "codes nor an observer; remove symmetric=False and the observer"
            )
        super().__init__(bits, **options)

    @property
    def saw_only_zero(self) -> bool:
        """False, because the scale is fixed and does not depend on the observed values."""
        return False

    def fit(self) -> None:
        """Decides the sign from the observed values; the largest code represents 1."""
        super().fit()
        scale = torch.full_like(self.scale, 1 / self.codes.high)
        self.set_parameters(self.format, scale, self.zero_point)
