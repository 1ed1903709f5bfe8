"""Concatenation of activations that share one scale."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import (
    DataAxis,
    Operator,
    Parameters,
    Shape,
    TorchFunction,
    require,
)
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations


class Concatenate(Operator):
    """Joins the inputs along `axis`. Inputs of another scale must be requantized before.

    A constant, whose first axis is 1, is repeated for every sample.
    """

    kind: Literal["concatenate"] = "concatenate"
    axis: DataAxis
    input_count: ClassVar[int | None] = None
    family: ClassVar[Family] = Family.MOVE
    scaling: ClassVar[Scaling] = Scaling.KEPT
    accumulates: ClassVar[bool] = False

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the inputs' shape with the sum of their sizes along `axis`."""
        for shape in shapes:
            others = [
                (a, b) for axis, (a, b) in enumerate(zip(shape, shapes[0], strict=True)) if axis
            ]
            del others[self.axis - 1]
            require(
                all(a == b for a, b in others),
                f"the shapes {shapes[0]} and {shape} cannot be joined along axis {self.axis}",
            )
        joined = [max(shape[0] for shape in shapes), *shapes[0][1:]]
        joined[self.axis] = sum(shape[self.axis] for shape in shapes)
        return tuple(joined)

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the union of the inputs' intervals."""
        total = inputs[0]
        for x in inputs[1:]:
            total = total.union(x)
        return total

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Returns a copy of all inputs, one after the other."""
        batch = max(len(x) for x in inputs)
        whole = [np.broadcast_to(x, (batch, *x.shape[1:])) for x in inputs]
        return np.concatenate(whole, axis=self.axis)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function that copies the inputs in the dtype that holds the union."""
        dtype = carrier(self.output_interval(inputs, parameters))

        def run(*values: torch.Tensor) -> torch.Tensor:
            batch = max(len(x) for x in values)
            whole = [x.to(dtype).expand(batch, *x.shape[1:]) for x in values]
            return torch.cat(whole, dim=self.axis)

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one move for each element, because each is written to a new place."""
        return LaneOperations(moves=math.prod(self.output_shape(shapes, parameters)))
