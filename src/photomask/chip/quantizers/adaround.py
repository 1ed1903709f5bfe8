"""AdaRound learns for each weight whether it is rounded up or down."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from photomask.chip.quantizers.base import Quantizer
from photomask.errors import DataError

STRETCH_HIGH = 1.1
"""The upper end of the stretched sigmoid, which is then clamped to 1."""
STRETCH_LOW = -0.1
"""The lower end of the stretched sigmoid, which is then clamped to 0."""
ON_GRID = 2.0**-16
"""A value that is nearer to a code than this share of the scale keeps that code."""


def rectified_sigmoid(alpha: Tensor) -> Tensor:
    """Returns `clamp(sigmoid(alpha) * 1.2 - 0.1, 0, 1)`, which reaches 0 and 1.

    Source: Nagel et al. 2020, equation 23, arXiv:2004.10568.
    """
    stretched = torch.sigmoid(alpha) * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW
    return stretched.clamp(0, 1)


def inverse_rectified_sigmoid(part: Tensor) -> Tensor:
    """Returns the `alpha` for which `rectified_sigmoid(alpha)` is `part`, from 0 to 1."""
    return torch.logit((part - STRETCH_LOW) / (STRETCH_HIGH - STRETCH_LOW))


def rounding_regularizer(part: Tensor, beta: float) -> Tensor:
    """Returns the sum of `1 - |2 h - 1|**beta`, which is 0 where every `h` is 0 or 1.

    Args:
        part: `h`, the share of the scale by which each weight is rounded up, from 0 to 1.
        beta: a large exponent has a gradient near 0 and 1 only; the exponent 2 pushes every `h`
            away from 1/2.

    Source: Nagel et al. 2020, equation 24, arXiv:2004.10568.
    """
    return (1 - (2 * part - 1).abs() ** beta).sum()


class AdaRound(Quantizer):
    """Quantizes a weight uniformly, with a rounding that is learned for each element.

        training:    x_soft = (clamp(floor(x / scale) + h(alpha) + zero_point) - zero_point) * scale
        evaluation:  code   = clamp(floor(x / scale) + (h(alpha) >= 1/2) + zero_point)
        alpha = h^-1(x / scale - floor(x / scale)) + shift,   h = rectified_sigmoid

    Where `shift` is 0, the soft value is the float weight, clamped to the range, and the code is
    the nearest one. `learn` gives every element a `shift` of its own, which is the parameter to
    train. The paper trains `alpha` itself. Here `alpha` is its initial value plus `shift`, so that
    the quantizer is defined before anything was learned. Values that are on a code keep it.

    In evaluation mode the codes are always integers. Soft values between two codes exist only in
    training, and are never stored or converted.

    Source: Nagel et al. 2020, section 3.2, arXiv:2004.10568.
    """

    soft_training = True
    shift: Tensor

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register_buffer("shift", torch.zeros(()))

    @classmethod
    def adopt(cls, fitted: Quantizer, weight: Tensor) -> Self:
        """Returns an AdaRound with the format and scale of a fitted quantizer, ready to learn.

        Args:
            fitted: a fitted uniform quantizer, which is not changed.
            weight: the weight whose rounding will be learned.
        """
        own = cls(
            fitted.bits,
            symmetric=fitted.symmetric,
            signed=fitted.signed,
            granularity=fitted.granularity,
            observer=fitted.observer,
            power_of_two=fitted.power_of_two,
            narrow=fitted.narrow,
        )
        own.to(fitted.scale.device)
        own.channel_scale, own.group_multiplier = fitted.channel_scale, fitted.group_multiplier
        own.set_parameters(fitted.format, fitted.scale, fitted.zero_point)
        own.learn(weight)
        return own

    def learn(self, weight: Tensor) -> None:
        """Makes `shift` a parameter of zeros with the shape of the weight."""
        del self.shift
        self.shift = nn.Parameter(torch.zeros_like(weight, dtype=torch.float32))

    def quantize(self, x: Tensor) -> Tensor:
        """Returns integer codes, rounded up where `h(alpha) >= 1/2` and down elsewhere.

        Raises:
            QuantizerError: the quantizer is not fitted.
            DataError: the shape differs from that of the weight whose rounding was learned.
        """
        if not self.shift.ndim:
            return super().quantize(x)
        self._check(x)
        codes = self.codes
        ratio = (x if x.dtype == torch.float64 else x.float()) / self.scale_for(x)
        up = (self._part(ratio) >= 0.5).to(ratio)
        return (ratio.floor() + up + self.zero_point_for(x)).clamp(codes.low, codes.high)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the soft value in training mode, and `dequantize(quantize(x))` in evaluation.

        The gradient to `x` is that of the identity inside the range. The soft value also has a
        gradient to `shift`.
        """
        return self.soften(x)[0] if self.training else super().forward(x)

    def soften(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the soft value and `h(alpha)`, the share of the scale by which it is rounded."""
        self._check(x)
        scale = self.scale_for(x)
        zero_point = self.zero_point_for(x)
        codes = self.codes
        ratio = x / scale
        part = self._part(ratio)
        # The last term is exactly 0, and carries the gradient to `x`.
        soft = ratio.detach().floor() + part + (ratio - ratio.detach())
        return soft.clamp(codes.low - zero_point, codes.high - zero_point) * scale, part

    def _part(self, ratio: Tensor) -> Tensor:
        """Returns `h(alpha)`; it is 0 or 1 on a code, so that zeros of a sparse weight stay 0."""
        ratio = ratio.detach()
        fraction = ratio - ratio.floor()
        learned = rectified_sigmoid(inverse_rectified_sigmoid(fraction) + self.shift)
        nearest = fraction.round()
        return torch.where((fraction - nearest).abs() <= ON_GRID, nearest, learned)

    def _check(self, x: Tensor) -> None:
        if self.shift.ndim and self.shift.shape != x.shape:
            raise DataError(
                f"the rounding was learned for a weight of shape {list(self.shift.shape)}, found a "
                f"tensor of shape {list(x.shape)}; quantize that weight, or call learn(weight)"
            )

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Loads the state, after giving `shift` the shape that it has in the state."""
        saved = state_dict.get(prefix + "shift")
        if saved is not None and saved.shape != self.shift.shape:
            if saved.ndim:
                self.learn(saved.to(self.shift.device))
            else:
                del self.shift
                self.register_buffer("shift", torch.zeros_like(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)
