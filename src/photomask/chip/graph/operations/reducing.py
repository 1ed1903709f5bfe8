"""Averages, sums and maxima over windows and whole axes."""

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
    """Sums of codes, which the rescaling divides by how many there are."""

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
        """It does."""
        return True


@dataclass(frozen=True)
class MaxPool(Operation):
    """Maximum over windows of the last axes."""

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

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One pooling."""
        pool = F.max_pool2d if len(self.kernel) == 2 else F.max_pool1d
        return pool(
            inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )


@dataclass(frozen=True)
class AveragePool(Average):
    """Average over windows of the last axes."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool
    count_padding: bool
    divisor: int | None

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """The axes of the windows."""
        return frozenset(range(len(shape) - len(self.kernel), len(shape)))

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One pooling."""
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
    """Average over `output_size` windows that cover the last axes, perhaps unevenly."""

    output_size: tuple[int, ...]

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """The axes of the windows."""
        return frozenset(range(len(shape) - len(self.output_size), len(shape)))

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One pooling."""
        pool: Any = F.adaptive_avg_pool2d if len(self.output_size) == 2 else F.adaptive_avg_pool1d
        return pool(inputs[0], self.output_size)


@dataclass(frozen=True)
class Mean(Average):
    """Mean (or, with `divide` false, sum) over whole axes."""

    axes: tuple[int, ...]
    keep_axes: bool
    divide: bool = True

    @property
    def divides(self) -> bool:
        """False for a sum."""
        return self.divide

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Its axes."""
        return frozenset(axis % len(shape) for axis in self.axes)

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One reduction."""
        reduce = torch.mean if self.divide else torch.sum
        return reduce(inputs[0], dim=self.axes, keepdim=self.keep_axes)
