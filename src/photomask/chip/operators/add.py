"""The weighted sum of activations: residual addition and subtraction with aligned scales."""

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


class Add(Operator):
    """`accumulator = bias + sum_j coefficient[j] * x_j`; inputs broadcast.

    The coefficients align the scales of the inputs. `bias` subtracts the share of the zero points.
    """

    kind: Literal["add"] = "add"
    coefficients: tuple[Int64, ...]
    bias: Int64
    input_count: ClassVar[int | None] = None
    family: ClassVar[Family] = Family.ELEMENTWISE
    scaling: ClassVar[Scaling] = Scaling.CHANGED
    accumulates: ClassVar[bool] = True

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the inputs' common shape."""
        return tuple(np.broadcast_shapes(*shapes))

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns an interval of the partial sums in any order of summation."""
        terms = [x.scaled(c) for x, c in zip(inputs, self.coefficients, strict=True)]
        terms.append(Interval(self.bias, self.bias))
        total = Interval(0, 0)
        for term in terms:
            total = total + term.union(Interval(0, 0))
        return total

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Adds one term after the other."""
        total: np.ndarray = np.asarray(self.bias, dtype=np.int64)
        for x, coefficient in zip(inputs, self.coefficients, strict=True):
            total = total + coefficient * x
        return total

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function in the dtype that holds every partial sum."""
        dtype = carrier(self.output_interval(inputs, parameters))

        def run(*values: torch.Tensor) -> torch.Tensor:
            total = values[0].to(dtype) * self.coefficients[0] + self.bias
            for x, coefficient in zip(values[1:], self.coefficients[1:], strict=True):
                total = torch.add(total, x.to(dtype), alpha=coefficient)
            return total

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one product for each input of each sum."""
        return LaneOperations(
            multiply_adds=math.prod(self.output_shape(shapes, parameters)) * len(shapes)
        )
