"""Granularity: which values share a scale."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad

from photomask.errors import DataError, RecipeError


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor; scale shape `[]`."""

    def rows(self, x: Tensor) -> Tensor:
        """Returns the values as one row `[1, N]`, in memory order where that spares a copy."""
        if x.dim() == 4 and not x.is_contiguous():
            x = x.permute(0, 2, 3, 1)  # channels-last activations are contiguous this way
        return x.reshape(1, -1)

    def align(self, parameter: Tensor, x: Tensor) -> Tensor:
        """Returns a scale or zero point as it broadcasts against `x`."""
        return parameter

    def __str__(self) -> str:
        return "per tensor"


@dataclass(frozen=True)
class PerChannel:
    """One scale a channel; scale shape `[C]`.

    Attributes:
        axis: the channel axis; 0 is a weight's output channel.
    """

    axis: int = 0

    def rows(self, x: Tensor) -> Tensor:
        """Returns the values as one row a channel, `[C, N]`.

        Raises:
            DataError: `x` has no such axis.
        """
        self._check(x)
        return x.movedim(self.axis, 0).reshape(x.shape[self.axis], -1)

    def align(self, parameter: Tensor, x: Tensor) -> Tensor:
        """Returns a scale or zero point `[C]` as it broadcasts against `x`."""
        self._check(x, parameter.shape[0])
        shape = [1] * x.dim()
        shape[self.axis] = -1
        return parameter.reshape(shape)

    def _check(self, x: Tensor, channels: int | None = None) -> None:
        if not -x.dim() <= self.axis < x.dim():
            raise DataError(f"no axis {self.axis} in a tensor of shape {list(x.shape)}")
        if channels is not None and x.shape[self.axis] != channels:
            raise DataError(
                f"{channels} channels were calibrated; axis {self.axis} of shape {list(x.shape)} "
                f"has {x.shape[self.axis]}"
            )

    def __str__(self) -> str:
        return "per channel" if self.axis == 0 else f"per channel (axis {self.axis})"


@dataclass(frozen=True)
class PerGroup:
    """One scale for each group of consecutive input channels of a weight `[O, I, *kernel]`.

    Sums over groups with arbitrary real scales cannot be rescaled afterwards by an integer, so the
    scale of a group has two levels::

        scale[o, g] = channel_scale[o] * group_multiplier[o, g]

    where the multiplier is a positive integer: `sum_g multiplier[o, g] * sum_{k in g} w[k] x[k]` is
    an integer sum with the single scale `channel_scale[o]`. Scale shape `[O, G]`.

    Attributes:
        size: input channels of a group; the last group may be smaller.
        multiplier_bits: width of the unsigned group multiplier, 1 to 12.

    Raises:
        RecipeError: a size below 1, or a width outside 1..12.

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
        """Returns how many groups that many input channels make."""
        return -(-channels // self.size)

    def rows(self, x: Tensor) -> Tensor:
        """Returns the values as one row a group, `[O * G, N]`; a smaller last group is padded.

        The padding is 0: it changes no range, which holds 0 anyway, and has no quantization error.

        Raises:
            DataError: `x` has no input-channel axis.
        """
        if x.dim() < 2:
            raise DataError(f"groups need a weight [O, I, *kernel], found shape {list(x.shape)}")
        outputs, inputs = x.shape[:2]
        groups = self.groups(inputs)
        flat = x.reshape(outputs, inputs, -1)
        flat = pad(flat, (0, 0, 0, groups * self.size - inputs))
        return flat.reshape(outputs * groups, -1)

    def align(self, parameter: Tensor, x: Tensor) -> Tensor:
        """Returns a scale or zero point `[O, G]` as it broadcasts against `x`."""
        outputs, groups = parameter.shape
        if x.dim() < 2 or x.shape[0] != outputs or self.groups(x.shape[1]) != groups:
            raise DataError(
                f"{outputs} x {groups} groups of {self.size} channels were calibrated; "
                f"found shape {list(x.shape)}"
            )
        spread = parameter.repeat_interleave(self.size, dim=1)[:, : x.shape[1]]
        return spread.reshape(*spread.shape, *[1] * (x.dim() - 2))

    def __str__(self) -> str:
        return f"per group of {self.size} (multiplier {self.multiplier_bits} bits)"


Granularity = PerTensor | PerChannel | PerGroup
"""Which values share a scale: all, those of a channel, or those of a group of inputs."""
