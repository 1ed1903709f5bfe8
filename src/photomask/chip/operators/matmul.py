"""The matrix product of two activations."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch

from photomask.chip.arithmetic import FLOAT64_EXACT, carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import (
    Extent,
    Int64,
    Operator,
    Parameters,
    Shape,
    TorchFunction,
    require,
)
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import MatrixProduct, SpatialAxis


class Matmul(Operator):
    """`accumulator[..., m, n] = sum_k (a[..., m, k] - za) * (b[..., k, n] - zb)`."""

    kind: Literal["matmul"] = "matmul"
    zero_points: tuple[Int64, Int64]
    terms: Extent
    """The length of the summed axis."""
    input_count: ClassVar[int | None] = 2
    family: ClassVar[Family] = Family.ROW
    scaling: ClassVar[Scaling] = Scaling.MULTIPLIED
    accumulates: ClassVar[bool] = True

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the shape [..., M, N]; leading axes broadcast."""
        a, b = shapes
        require(
            min(len(a), len(b)) >= 3 and a[-1] == b[-2] == self.terms,
            f"the shapes {a} and {b} have no common axis of {self.terms} elements behind the batch",
        )
        return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the interval of a sum of `terms` products, any of which may be absent."""
        a, b = (x.shifted(-z) for x, z in zip(inputs, self.zero_points, strict=True))
        return a.product(b).union(Interval(0, 0)).scaled(self.terms)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes one int64 matrix product."""
        a, b = (x - z for x, z in zip(inputs, self.zero_points, strict=True))
        return np.matmul(a, b)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function in float32 or float64, whichever holds every partial sum."""
        interval = self.output_interval(inputs, parameters)
        first, second = self.zero_points
        factors = (x.shifted(-z) for x, z in zip(inputs, self.zero_points, strict=True))
        widest = Interval.hull(interval, first, second, *inputs, *factors)
        if widest.magnitude > FLOAT64_EXACT:
            return self.wrap_oracle(inputs, parameters, device)
        dtype = carrier(widest)

        def run(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.matmul(a.to(dtype) - first, b.to(dtype) - second).to(carrier(interval))

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> MatrixProduct:
        """Returns one matrix product for each sample and head, with `b` in place of the weights."""
        *batch, rows, columns = self.output_shape(shapes, parameters)
        return MatrixProduct(
            groups=math.prod(batch),
            channels_out=columns,
            channels_in=self.terms,
            rows=SpatialAxis(1, 1),
            columns=SpatialAxis(rows, rows),
        )
