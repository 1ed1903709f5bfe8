"""Saturation of an activation between two integers.

It is used for a ReLU or clamp that no requantization could include.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import model_validator

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import Int64, Operator, Parameters, Shape, TorchFunction
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations


class Clamp(Operator):
    """`y = max(low, min(high, x))`."""

    kind: Literal["clamp"] = "clamp"
    low: Int64
    high: Int64
    family: ClassVar[Family] = Family.ELEMENTWISE
    scaling: ClassVar[Scaling] = Scaling.KEPT
    accumulates: ClassVar[bool] = False

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the input's shape."""
        return shapes[0]

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the input's interval, clamped."""
        x = inputs[0]
        return Interval(max(self.low, min(self.high, x.low)), max(self.low, min(self.high, x.high)))

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes two comparisons for each element."""
        return np.clip(inputs[0], self.low, self.high)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function that clamps in the dtype that holds its input and its output."""
        interval = self.output_interval(inputs, parameters)
        dtype = carrier(interval.union(inputs[0]))

        def run(x: torch.Tensor) -> torch.Tensor:
            return x.to(dtype).clamp(self.low, self.high).to(carrier(interval))

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one operation per element, which includes both comparisons."""
        return LaneOperations(additions=math.prod(shapes[0]))
