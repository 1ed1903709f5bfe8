"""Concatenation of activations that share one scale."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from photomask.chip.formats import Interval
from photomask.chip.operators.base import Operator, Parameters, Shape, TorchFunction


class Concatenate(Operator):
    """Joins the inputs along `axis`; inputs of another scale are requantized before."""

    kind: Literal["concatenate"] = "concatenate"
    axis: int

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """The inputs' shape, `axis` added up."""
        joined = list(shapes[0])
        joined[self.axis] = sum(shape[self.axis] for shape in shapes)
        return tuple(joined)

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """The union."""
        total = inputs[0]
        for x in inputs[1:]:
            total = total.union(x)
        return total

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """A copy."""
        return np.concatenate(inputs, axis=self.axis)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """A copy."""

        def run(*values: torch.Tensor) -> torch.Tensor:
            return torch.cat(values, dim=self.axis)

        return run
