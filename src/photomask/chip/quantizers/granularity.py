"""Defines granularities, which say what values share a scale."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad

from photomask.errors import DataError, RecipeError


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor, in the shape `[]`."""

    def rows(self, x: Tensor) -> Tensor:
        """Returns the values as one row `[1, N]`, in memory order where that saves a copy."""
        if x.dim() == 4 and not x.is_contiguous():
            x = x.permute(0, 2, 3, 1)  # channels-last activations are contiguous this way
        return x.reshape(1, -1)

    def align(self, parameter: Tensor, x: Tensor) -> Tensor:
        """Returns a scale or zero point in a shape that broadcasts against `x`."""
        return parameter

    def __str__(self) -> str:
        return "per tensor"


@dataclass(frozen=True)
class PerChannel:
    """One scale for each channel, in the shape `[C]`.

    Attributes:
        axis: the channel axis; axis 0 of a weight holds the output channels.
    """

    axis: int = 0

    def rows(self, x: Tensor) -> Tensor:
        """Returns the values with one row for each channel, `[C, N]`.

        Raises:
            DataError: `x` does not have the channel axis.
        """
        self._check(x)
        return x.movedim(self.axis, 0).reshape(x.shape[self.axis], -1)

    def align(self, parameter: Tensor, x: Tensor) -> Tensor:
        """Returns a scale or zero point `[C]` in a shape that broadcasts against `x`."""
        self._check(x, parameter.shape[0])
        shape = [1] * x.dim()
        shape[self.axis] = -1
        return parameter.reshape(shape)

    def _check(self, x: Tensor, channels: int | None = None) -> None:
        if not -x.dim() <= self.axis < x.dim():
            raise DataError(
                f"the channel axis is {self.axis}, which a tensor of shape {list(x.shape)} lacks; "
                "give the quantizer another axis"
            )
        if channels is not None and x.shape[self.axis] != channels:
            raise DataError(
                f"{channels} channels were calibrated, but axis {self.axis} of a tensor of shape "
                f"{list(x.shape)} has {x.shape[self.axis]}; calibrate with tensors of this shape"
            )

    def __str__(self) -> str:
        return "per channel" if self.axis == 0 else f"per channel (axis {self.axis})"


@dataclass(frozen=True)
class PerGroup:
    """One scale for each group of consecutive input channels of a weight `[O, I, *kernel]`.

    A sum over groups with arbitrary real scales cannot be rescaled afterwards by one integer, so
    the scale of a group has two levels::

        scale[o, g] = channel_scale[o] * group_multiplier[o, g]

    The multiplier is a positive integer. Hence `sum_g multiplier[o, g] * sum_{k in g} w[k] x[k]` is
    an integer sum with the single scale `channel_scale[o]`. The shape of the scale is `[O, G]`.

    Attributes:
        size: the input channels of a group; the last group may be smaller.
        multiplier_bits: the width of the unsigned multiplier of a group, 1 to 12.

    Raises:
        RecipeError: the size is below 1, or the width is outside 1..12.

    Source: Dai et al. 2021 (VS-Quant), section 4.4, arXiv:2102.04503.
    """

    size: int
    multiplier_bits: int = 8

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RecipeError(f"a group needs at least one channel, found size {self.size}")
        if not 1 <= self.multiplier_bits <= 12:
            raise RecipeError(f"multiplier_bits must be 1 to 12, found {self.multiplier_bits}")

    def groups(self, channels: int) -> int:
        """Returns the number of groups of a number of input channels."""
        return -(-channels // self.size)

    def rows(self, x: Tensor) -> Tensor:
        """Returns the values with one row for each group, `[O * G, N]`.

        A smaller last group is padded with 0. That changes no range, because every range holds 0,
        and 0 has no quantization error.

        Raises:
            DataError: `x` has no axis of input channels.
        """
        if x.dim() < 2:
            raise DataError(
                f"scales per group need a weight [O, I, *kernel], found shape {list(x.shape)}"
            )
        outputs, inputs = x.shape[:2]
        groups = self.groups(inputs)
        flat = x.reshape(outputs, inputs, -1)
        flat = pad(flat, (0, 0, 0, groups * self.size - inputs))
        return flat.reshape(outputs * groups, -1)

    def align(self, parameter: Tensor, x: Tensor) -> Tensor:
        """Returns a scale or zero point `[O, G]` in a shape that broadcasts against `x`."""
        outputs, groups = parameter.shape
        if x.dim() < 2 or x.shape[0] != outputs or self.groups(x.shape[1]) != groups:
            raise DataError(
                f"{outputs} x {groups} groups of {self.size} channels were calibrated, which do "
                f"not fit a tensor of shape {list(x.shape)}; calibrate with weights of this shape"
            )
        spread = parameter.repeat_interleave(self.size, dim=1)[:, : x.shape[1]]
        return spread.reshape(*spread.shape, *[1] * (x.dim() - 2))

    def __str__(self) -> str:
        return f"per group of {self.size} (multiplier {self.multiplier_bits} bits)"


Granularity = PerTensor | PerChannel | PerGroup
"""The values that share a scale: all, those of a channel, or those of a group of channels."""
