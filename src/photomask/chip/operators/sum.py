"""Sums over whole axes, for global pooling and means."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import (
    DataAxis,
    Int64,
    Operator,
    Parameters,
    Shape,
    TorchFunction,
    require,
)
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations


class Sum(Operator):
    """`accumulator = sum(x - zero_point)` over `axes`; a requantization divides by the count."""

    kind: Literal["sum"] = "sum"
    axes: tuple[DataAxis, ...]
    keep_axes: bool
    zero_point: Int64
    terms: Annotated[int, Field(ge=1)]
    """The number of elements in one sum."""
    family: ClassVar[Family] = Family.REDUCTION
    scaling: ClassVar[Scaling] = Scaling.SUMMED
    accumulates: ClassVar[bool] = True

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the shape without `axes`, or with 1 in their places."""
        count = math.prod(shapes[0][axis] for axis in self.axes)
        require(
            len(set(self.axes)) == len(self.axes) > 0 and count == self.terms,
            f"the axes {self.axes} of the shape {shapes[0]} do not hold {self.terms} elements",
        )
        kept = [1 if axis in self.axes else size for axis, size in enumerate(shapes[0])]
        if self.keep_axes:
            return tuple(kept)
        return tuple(size for axis, size in enumerate(kept) if axis not in self.axes)

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the interval of a sum of `terms` elements, any of which may be absent."""
        return inputs[0].shifted(-self.zero_point).union(Interval(0, 0)).scaled(self.terms)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes one int64 sum."""
        return (inputs[0] - self.zero_point).sum(axis=self.axes, keepdims=self.keep_axes)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function in the dtype that holds every partial sum."""
        interval = self.output_interval(inputs, parameters)
        dtype = carrier(Interval.hull(interval, inputs[0], self.zero_point))

        def run(x: torch.Tensor) -> torch.Tensor:
            centred = x.to(dtype) - self.zero_point
            return centred.sum(dim=self.axes, keepdim=self.keep_axes).to(carrier(interval))

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one addition for each element."""
        return LaneOperations(
            additions=math.prod(self.output_shape(shapes, parameters)) * self.terms
        )

    def input_lane_axis(self, number: int, shape: Shape) -> int | None:
        """Returns an axis that is not summed, so that each lane has its own sums.

        It is axis 1 or the last axis.
        """
        kept = [axis for axis in (1, len(shape) - 1) if axis not in self.axes]
        return kept[0] if kept else 0

    def output_lane_axis(self, shapes: Sequence[Shape], output: Shape) -> int | None:
        """Returns the same axis of the result, in which the summed axes are missing."""
        axis = self.input_lane_axis(0, shapes[0]) or 0
        return axis - (0 if self.keep_axes else sum(other < axis for other in self.axes))
