"""Matrix product of two activations."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from photomask.chip.arithmetic import FLOAT32_EXACT, carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import Operator, Parameters, Shape, TorchFunction


class Matmul(Operator):
    """`accumulator[..., m, n] = sum_k (a[..., m, k] - za) * (b[..., k, n] - zb)`."""

    kind: Literal["matmul"] = "matmul"
    zero_points: tuple[int, int]
    terms: int
    """Length of the summed axis."""

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """[..., M, N]; leading axes broadcast."""
        a, b = shapes
        return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """`terms` products, any of which may be absent."""
        a, b = (x.shifted(-z) for x, z in zip(inputs, self.zero_points, strict=True))
        return a.product(b).union(Interval(0, 0)).scaled(self.terms)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """One int64 matrix product."""
        a, b = (x - z for x, z in zip(inputs, self.zero_points, strict=True))
        return np.matmul(a, b)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """float32 or float64, whichever holds every partial sum."""
        interval = self.output_interval(inputs, parameters)
        dtype = torch.float32 if interval.magnitude <= FLOAT32_EXACT else torch.float64
        first, second = self.zero_points

        def run(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.matmul(a.to(dtype) - first, b.to(dtype) - second).to(carrier(interval))

        return run

    def multiply_accumulates(self, shapes: Sequence[Shape], parameters: Parameters) -> int:
        """Output elements times `terms`."""
        return int(np.prod(self.output_shape(shapes, parameters))) * self.terms
