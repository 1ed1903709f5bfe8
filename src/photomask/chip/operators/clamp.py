"""Saturation of an activation between two integers: a ReLU that no requantization could take."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from photomask.chip.formats import Interval
from photomask.chip.operators.base import Operator, Parameters, Shape, TorchFunction


class Clamp(Operator):
    """`y = max(low, min(high, x))`."""

    kind: Literal["clamp"] = "clamp"
    low: int
    high: int

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Unchanged."""
        return shapes[0]

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """The input's interval, clamped."""
        x = inputs[0]
        return Interval(max(self.low, min(self.high, x.low)), max(self.low, min(self.high, x.high)))

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Two comparisons."""
        return np.clip(inputs[0], self.low, self.high)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """One clamp."""

        def run(x: torch.Tensor) -> torch.Tensor:
            return x.clamp(self.low, self.high)

        return run
