"""AdaRound: each weight learns whether it is rounded up or down."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from photomask.chip.quantizers.base import Quantizer
from photomask.errors import DataError

STRETCH_HIGH = 1.1
"""Upper end of the stretched sigmoid, which is then cut off at 1."""
STRETCH_LOW = -0.1
"""Lower end, cut off at 0."""
ON_GRID = 2.0**-16
"""Values nearer to a code than this part of a step are that code; nothing is left to learn."""


def rectified_sigmoid(alpha: Tensor) -> Tensor:
    """Returns `clamp(sigmoid(alpha) * 1.2 - 0.1, 0, 1)`, which reaches 0 and 1.

    Source: Nagel et al. 2020, equation 23, arXiv:2004.10568.
    """
    stretched = torch.sigmoid(alpha) * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW
    return stretched.clamp(0, 1)


def inverse_rectified_sigmoid(part: Tensor) -> Tensor:
    """Returns the `alpha` of which `rectified_sigmoid` makes `part`, 0 to 1."""
    return torch.logit((part - STRETCH_LOW) / (STRETCH_HIGH - STRETCH_LOW))


def rounding_regularizer(part: Tensor, beta: float) -> Tensor:
    """Returns the sum of `1 - |2 h - 1|**beta`: 0 where every `h` is 0 or 1.

    Args:
        part: `h`, how much of a step each weight is rounded up, 0 to 1.
        beta: large leaves all but the ends flat; 2 pulls from the middle outwards.

    Source: Nagel et al. 2020, equation 24, arXiv:2004.10568.
    """
    return (1 - (2 * part - 1).abs() ** beta).sum()


class AdaRound(Quantizer):
    """Uniform quantization of a weight whose rounding is learned, element by element.

        training:    x_soft = (clamp(floor(x / scale) + h(alpha) + zero_point) - zero_point) * scale
        evaluation:  code   = clamp(floor(x / scale) + (h(alpha) >= 1/2) + zero_point)
        alpha = h^-1(x / scale - floor(x / scale)) + shift,   h = rectified_sigmoid

    With `shift` 0 the soft value is the float weight (cut off at the ends of the range) and the
    code is the nearest one. `learn` gives every element a `shift` of its own, the parameter to
    train. It differs from the paper in that `alpha` is written as its start plus what was learned,
    so that the quantizer is defined before anything was; values on a code stay there.

    Codes in evaluation mode are always hard: what training saw between two codes is never
    measured, stored or converted.

    Source: Nagel et al. 2020, section 3.2, arXiv:2004.10568.
    """

    soft_training = True
    shift: Tensor

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register_buffer("shift", torch.zeros(()))

    @classmethod
    def adopt(cls, fitted: Quantizer, weight: Tensor) -> Self:
        """Returns an AdaRound with format and scale of a fitted quantizer, ready to learn.

        Args:
            fitted: uniform, and not changed.
            weight: whose rounding will be learned.
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
        """Makes `shift` a parameter with one 0 for every element of the weight."""
        del self.shift
        self.shift = nn.Parameter(torch.zeros_like(weight, dtype=torch.float32))

    def quantize(self, x: Tensor) -> Tensor:
        """Returns the hard codes: rounded up where `h(alpha) >= 1/2`, down elsewhere.

        Raises:
            QuantizerError: before `fit`.
            DataError: the shape is not that of the weight whose rounding was learned.
        """
        if not self.shift.ndim:
            return super().quantize(x)
        self._check(x)
        codes = self.codes
        ratio = (x if x.dtype == torch.float64 else x.float()) / self.scale_for(x)
        up = (self._part(ratio) >= 0.5).to(ratio)
        return (ratio.floor() + up + self.zero_point_for(x)).clamp(codes.low, codes.high)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the soft value in training mode, the value of the hard codes in evaluation.

        The gradient to `x` is that of the identity inside the range; `shift` gets its own.
        """
        return self.soften(x)[0] if self.training else super().forward(x)

    def soften(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the soft value, and `h(alpha)`, the part of a step by which it is rounded up."""
        self._check(x)
        scale = self.scale_for(x)
        zero_point = self.zero_point_for(x)
        codes = self.codes
        ratio = x / scale
        part = self._part(ratio)
        # The last bracket is exactly 0 and carries the gradient to `x`.
        soft = ratio.detach().floor() + part + (ratio - ratio.detach())
        return soft.clamp(codes.low - zero_point, codes.high - zero_point) * scale, part

    def _part(self, ratio: Tensor) -> Tensor:
        """Returns `h(alpha)`; on a code it is 0 or 1, so that zeros of a sparse weight stay."""
        ratio = ratio.detach()
        fraction = ratio - ratio.floor()
        learned = rectified_sigmoid(inverse_rectified_sigmoid(fraction) + self.shift)
        nearest = fraction.round()
        return torch.where((fraction - nearest).abs() <= ON_GRID, nearest, learned)

    def _check(self, x: Tensor) -> None:
        if self.shift.ndim and self.shift.shape != x.shape:
            raise DataError(
                f"rounding was learned for a weight of shape {list(self.shift.shape)}, found "
                f"{list(x.shape)}"
            )

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Takes over what was learned, whose shape is the weight's."""
        saved = state_dict.get(prefix + "shift")
        if saved is not None and saved.shape != self.shift.shape:
            if saved.ndim:
                self.learn(saved.to(self.shift.device))
            else:
                del self.shift
                self.register_buffer("shift", torch.zeros_like(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)
