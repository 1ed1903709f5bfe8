"""LSQ learns the step size, which is the scale."""

from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.observers.moments import MeanMagnitude
from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.granularity import PerGroup
from photomask.chip.quantizers.straight_through import at_least, learn_step
from photomask.errors import RecipeError

SMALLEST_SHARE = 2.0**-10
"""A learned scale never falls below this share of the fitted scale."""


def refuse_unlearnable(name: str, granularity: Any, power_of_two: bool) -> None:
    """Refuses options that do not allow a scale that training moves to any number.

    Raises:
        RecipeError: scales per group, which are products with integers, or power-of-two scales
            were asked for.
    """
    if isinstance(granularity, PerGroup):
        raise RecipeError(
            f"{name} learns a scale per tensor or per channel, found PerGroup; scales of groups "
            "must remain integer multiples of their channel's scale, and learned scales would not"
        )
    if power_of_two:
        raise RecipeError(
            f"{name} learns a scale that may be any number, found power_of_two=True; use TQT"
        )


class LSQ(Quantizer):
    """Quantizes uniformly with a learned step size.

        code = clamp(round(x / s) + z),   value = (code - z) * s
        d value / d s = round(x / s) - x / s  inside the range;  Q_N below;  Q_P above
        d value / d x = 1  inside the range;  0 outside

    with `Q_N = code_low - z` and `Q_P = code_high - z`; values at the limits count as outside. The
    gradient of `s`, and only that, is multiplied by `1 / sqrt(N * code_high)`, where `N` is the
    number of values of one sample that share the scale.

    The zero point keeps its fitted value (0 if symmetric). The initial step is
    `2 E|x| / sqrt(Q_P)`, unless another observer chooses it.

    Where training moves the step below 2**-10 times the fitted step, that limit is used in its
    place. The scale so stays positive, and the gradient can raise the step again.

    Args:
        bits: the width of the codes, 2 to 16.
        options: the options of `Quantizer`; `observer` is `MeanMagnitude()` by default.

    Attributes:
        step: the parameter for `s`, before the lower limit, in the shape of `scale`.

    Raises:
        RecipeError: scales per group or power-of-two scales were asked for.

    Source: Esser et al. 2020, equations 1 to 5 and section 2.2, arXiv:1902.08153.
    """

    step: nn.Parameter
    smallest_step: Tensor

    def __init__(self, bits: int = 8, **options: Any):
        refuse_unlearnable(
            type(self).__name__, options.get("granularity"), options.get("power_of_two", False)
        )
        super().__init__(bits, **options)
        if options.get("observer") is None:
            self.observer = MeanMagnitude()

    def register_scale(self) -> None:
        """Registers the step as a parameter, and the lower limit of the step."""
        self.step = nn.Parameter(torch.ones(()))
        self.register_buffer("smallest_step", torch.zeros(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int64))

    @property
    def scale(self) -> Tensor:
        """The step, but at least its lower limit."""
        return at_least(self.step, self.smallest_step)

    @scale.setter
    def scale(self, value: Tensor) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.step.data = value.detach().clone()
        self.smallest_step = value.detach() * SMALLEST_SHARE

    def gradient_factor(self, x: Tensor) -> float:
        """Returns `1 / sqrt(N * code_high)` for an input of this shape."""
        sharing = x.numel() / self.step.numel()
        if self.batched:
            sharing /= max(1, x.shape[0])
        return max(1.0, sharing * self.codes.high) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))` with the gradients of the class's equations."""
        with torch.no_grad():
            value = self.dequantize(self.quantize(x))
        return learn_step(
            x,
            value,
            self.scale_for(x),
            None if self.symmetric else self.zero_point_for(x),
            low=self.codes.low,
            high=self.codes.high,
            factor=self.gradient_factor(x),
            offset=self._aligned_offset(x),
        )

    def _aligned_offset(self, x: Tensor) -> Tensor | None:
        """Returns the learned offset in a shape that broadcasts against `x`; None without one."""
        return None
