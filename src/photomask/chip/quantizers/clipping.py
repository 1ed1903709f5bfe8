"""Defines the base class of quantizers that learn where to clip."""

from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.lsq import SMALLEST_SHARE, refuse_unlearnable
from photomask.chip.quantizers.straight_through import at_least
from photomask.errors import RecipeError


class LearnedClip(Quantizer):
    """Base class of quantizers that learn their largest value: `scale = clip / largest_code`.

    The clip in use is at least 2**-10 times the fitted clip, so that the scale stays positive.

    Attributes:
        clip: the parameter for the largest value, in the shape of `scale`.

    Raises:
        RecipeError: affine codes, scales per group or power-of-two scales were asked for.
    """

    clip: nn.Parameter
    smallest_clip: Tensor

    def __init__(self, bits: int = 8, **options: Any):
        name = type(self).__name__
        refuse_unlearnable(name, options.get("granularity"), options.get("power_of_two", False))
        if not options.get("symmetric", True):
            raise RecipeError(
                f"{name} learns one limit, so its codes must be symmetric (zero point 0); use "
                "LSQPlus for activations whose range is not symmetric around 0"
            )
        super().__init__(bits, **options)

    def register_scale(self) -> None:
        """Registers the clip as a parameter, and the lower limit of the clip."""
        self.clip = nn.Parameter(torch.ones(()))
        self.register_buffer("smallest_clip", torch.zeros(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int64))

    @property
    def largest_code(self) -> int:
        """The code of the clip."""
        return self.codes.high if self.is_fitted else 1

    @property
    def scale(self) -> Tensor:
        """The positive scale `clip / largest_code`."""
        return at_least(self.clip, self.smallest_clip) / self.largest_code

    @scale.setter
    def scale(self, value: Tensor) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.clip.data = value.detach() * self.largest_code
        self.smallest_clip = self.clip.detach() * SMALLEST_SHARE
