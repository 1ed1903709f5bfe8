"""Averages, sums and maxima over windows or whole axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.graph.operations.base import (
    Accumulates,
    Constants,
    IntegerUse,
    Operation,
    OutputScale,
)


@dataclass(frozen=True)
class Average(Operation, abstract=True):
    """Base class of averages: sums of codes that the rescaling divides by their number."""

    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.CODES
    takes_clamp: ClassVar[bool] = True
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = None
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = True

    @property
    def divides(self) -> bool:
        """True, because the rescaling divides by the number of summands."""
        return True


@dataclass(frozen=True)
class MaxPool(Operation):
    """The maximum over windows of the last axes."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool
    output_scale: ClassVar[OutputScale] = OutputScale.KEPT
    accumulates: ClassVar[Accumulates] = Accumulates.NOTHING
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = None
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = False

    def mixed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the axes of the windows."""
        return frozenset(range(len(shape) - len(self.kernel), len(shape)))

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the maxima of the windows."""
        pool = F.max_pool2d if len(self.kernel) == 2 else F.max_pool1d
        return pool(
            inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )


@dataclass(frozen=True)
class AveragePool(Average):
    """The average over windows of the last axes."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool
    count_padding: bool
    divisor: int | None

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the axes of the windows."""
        return frozenset(range(len(shape) - len(self.kernel), len(shape)))

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the averages of the windows."""
        if len(self.kernel) == 1:
            return F.avg_pool1d(
                inputs[0],
                self.kernel,
                self.stride,
                self.padding,
                self.ceil_mode,
                self.count_padding,
            )
        return F.avg_pool2d(
            inputs[0],
            self.kernel,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_padding,
            self.divisor,
        )


@dataclass(frozen=True)
class AdaptiveAveragePool(Average):
    """The average over `output_size` windows of the last axes, whose sizes may differ."""

    output_size: tuple[int, ...]

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the axes of the windows."""
        return frozenset(range(len(shape) - len(self.output_size), len(shape)))

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the averages of the windows."""
        pool: Any = F.adaptive_avg_pool2d if len(self.output_size) == 2 else F.adaptive_avg_pool1d
        return pool(inputs[0], self.output_size)


@dataclass(frozen=True)
class Mean(Average):
    """The mean over whole axes, or the sum if `divide` is False."""

    axes: tuple[int, ...]
    keep_axes: bool
    divide: bool = True

    @property
    def divides(self) -> bool:
        """True for a mean, and False for a sum."""
        return self.divide

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the reduced axes."""
        return frozenset(axis % len(shape) for axis in self.axes)

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the means or the sums."""
        reduce = torch.mean if self.divide else torch.sum
        return reduce(inputs[0], dim=self.axes, keepdim=self.keep_axes)
