"""The elementwise product of two activations."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import Int64, Operator, Parameters, Shape, TorchFunction
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations


class Multiply(Operator):
    """`accumulator = (a - za) * (b - zb)`; inputs broadcast."""

    kind: Literal["multiply"] = "multiply"
    zero_points: tuple[Int64, Int64]
    input_count: ClassVar[int | None] = 2
    family: ClassVar[Family] = Family.ELEMENTWISE
    scaling: ClassVar[Scaling] = Scaling.MULTIPLIED
    accumulates: ClassVar[bool] = True

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the inputs' common shape."""
        return tuple(np.broadcast_shapes(*shapes))

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the product of both intervals."""
        a, b = (x.shifted(-z) for x, z in zip(inputs, self.zero_points, strict=True))
        return a.product(b)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes one int64 product for each element."""
        return (inputs[0] - self.zero_points[0]) * (inputs[1] - self.zero_points[1])

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function in the dtype that holds inputs, zero points, factors and product."""
        interval = self.output_interval(inputs, parameters)
        first, second = self.zero_points
        factors = (x.shifted(-z) for x, z in zip(inputs, self.zero_points, strict=True))
        dtype = carrier(Interval.hull(interval, first, second, *inputs, *factors))

        def run(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            product = (a.to(dtype) - first) * (b.to(dtype) - second)
            return product.to(carrier(interval))

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one product for each element."""
        return LaneOperations(multiply_adds=self.multiply_accumulates(shapes, parameters))

    def multiply_accumulates(self, shapes: Sequence[Shape], parameters: Parameters) -> int:
        """Returns the number of output elements, because each is one product."""
        return math.prod(self.output_shape(shapes, parameters))
