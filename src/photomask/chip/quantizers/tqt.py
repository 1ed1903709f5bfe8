"""TQT learns the threshold of a power-of-two scale."""

from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.observers.moments import ThreeSigma
from photomask.chip.quantizers.base import Quantizer, at_least_float32, floor_small_channels
from photomask.chip.quantizers.granularity import PerGroup, PerTensor
from photomask.chip.quantizers.straight_through import pass_gradient_inside, stand_in
from photomask.errors import RecipeError

_SMALLEST_EXPONENT, _LARGEST_EXPONENT = -100, 100


class TQT(Quantizer):
    """Quantizes uniformly with a learned power-of-two scale, so that rescaling is a shift.

        s = 2**ceil(log2 t) / 2**(bits - 1)  signed;   2**ceil(log2 t) / 2**bits  unsigned
        code = clamp(round(x / s)),   value = code * s
        d value / d log2 t = s * ln 2 * (round(x / s) - x / s)  inside the range
                           = s * ln 2 * code_low  below;  s * ln 2 * code_high  above
        d value / d x      = 1  inside the range;  0 outside

    The gradient passes straight through the ceiling. The scale is positive for every `log2 t`. The
    threshold starts from three standard deviations, as in the paper for weights; the paper uses
    `KL()` for activations.

    Attributes:
        log2_threshold: the parameter for `log2 t`, in the shape of `scale`.

    Raises:
        RecipeError: affine codes or scales per group were asked for.

    Source: Jain et al. 2019, equations 4 to 8 and section 4.2, arXiv:1903.08066.
    """

    log2_threshold: nn.Parameter

    def __init__(self, bits: int = 8, **options: Any):
        if isinstance(options.get("granularity"), PerGroup):
            raise RecipeError("TQT learns a threshold per tensor or per channel, found PerGroup")
        if not options.get("symmetric", True):
            raise RecipeError(
                "TQT has symmetric codes (zero point 0), found symmetric=False; remove it"
            )
        super().__init__(bits, **{**options, "power_of_two": True})
        if options.get("observer") is None:
            self.observer = ThreeSigma()

    def register_scale(self) -> None:
        """Registers the threshold as a parameter."""
        self.log2_threshold = nn.Parameter(torch.zeros(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int64))

    def fit(self) -> None:
        """Sets the threshold to the larger magnitude of the observed range's ends."""
        format = self._decide_format()
        low, high = self.observer.range(self._grid(format))
        threshold = floor_small_channels(torch.maximum(high, -low), low, high)
        threshold = threshold.reshape(() if isinstance(self.granularity, PerTensor) else (-1,))
        self.set_parameters(format, torch.ones_like(threshold), torch.zeros_like(threshold))
        self.log2_threshold.data = threshold.double().log2().float()

    @property
    def scale(self) -> Tensor:
        """`2**ceil(log2 t)` divided by the number of codes on one side of 0, without gradient."""
        exponent = self.log2_threshold.detach().ceil()
        exponent = exponent.clamp(_SMALLEST_EXPONENT, _LARGEST_EXPONENT) - self._code_bits
        return torch.ldexp(torch.ones_like(exponent), exponent.to(torch.int64))

    @scale.setter
    def scale(self, value: Tensor) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        # The value is exactly a power of two, for which frexp returns a mantissa of 1/2.
        exponent = torch.frexp(value.detach()).exponent - 1
        self.log2_threshold.data = (exponent + self._code_bits).to(torch.float32)

    @property
    def _code_bits(self) -> int:
        return self.format.bits - self.format.signed if self.is_fitted else 0

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))` with the gradients of the class's equations."""
        with torch.no_grad():
            value = self.dequantize(self.quantize(x))
        if not torch.is_grad_enabled():
            return value
        codes = self.codes
        # `learned` equals the scale and has the derivative `s * ln 2` of `2**(log2 t - bits)`.
        smooth = self.log2_threshold.exp2()
        scale = self.scale_for(x)
        learned = self.granularity.align(smooth / smooth.detach(), x) * scale
        position = at_least_float32(x) / learned
        rounded = position.detach().round().clamp(codes.low, codes.high)
        code = pass_gradient_inside(position, rounded, codes.low, codes.high)
        return stand_in(value, code * learned)
