"""Sum over whole axes: global pooling and means."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from photomask.chip.arithmetic import FLOAT32_EXACT, carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import Operator, Parameters, Shape, TorchFunction


class Sum(Operator):
    """`accumulator = sum(x - zero_point)` over `axes`; a requantization divides by the count."""

    kind: Literal["sum"] = "sum"
    axes: tuple[int, ...]
    keep_axes: bool
    zero_point: int
    terms: int
    """Elements in one sum."""

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Without `axes`, or with 1 in their places."""
        kept = [1 if axis in self.axes else size for axis, size in enumerate(shapes[0])]
        if self.keep_axes:
            return tuple(kept)
        return tuple(size for axis, size in enumerate(kept) if axis not in self.axes)

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """`terms` elements, any of which may be absent."""
        return inputs[0].shifted(-self.zero_point).union(Interval(0, 0)).scaled(self.terms)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """One int64 sum."""
        return (inputs[0] - self.zero_point).sum(axis=self.axes, keepdims=self.keep_axes)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Sums in float32 or float64, whichever holds every partial sum."""
        interval = self.output_interval(inputs, parameters)
        dtype = torch.float32 if interval.magnitude <= FLOAT32_EXACT else torch.float64

        def run(x: torch.Tensor) -> torch.Tensor:
            centred = x.to(dtype) - self.zero_point
            return centred.sum(dim=self.axes, keepdim=self.keep_axes).to(carrier(interval))

        return run
