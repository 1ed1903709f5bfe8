"""Any function of one activation, as a table with one entry per input code."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import Operator, Parameters, Shape, TorchFunction


class Lookup(Operator):
    """`y = table[x - first]`; the table covers every code of the input's format."""

    kind: Literal["lookup"] = "lookup"
    first: int
    """The input code of the table's first entry."""
    parameter_roles: ClassVar[tuple[str, ...]] = ("table",)

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Unchanged."""
        return shapes[0]

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """The range of the entries that the input can reach."""
        reached = parameters["table"][inputs[0].low - self.first : inputs[0].high - self.first + 1]
        return Interval(int(reached.min()), int(reached.max()))

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """One read per element."""
        return parameters["table"][inputs[0] - self.first]

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """One gather."""
        dtype = carrier(self.output_interval(inputs, parameters))
        table = torch.from_numpy(parameters["table"]).to(device, dtype)

        def run(x: torch.Tensor) -> torch.Tensor:
            return table[x.to(torch.int64).sub_(self.first)]

        return run
