"""Any function of one activation, as a table with one entry per input code."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import (
    Int64,
    Operator,
    Parameters,
    Shape,
    TorchFunction,
    require,
)
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations


class Lookup(Operator):
    """`y = table[x - first]`; the table covers every code of the input's format."""

    kind: Literal["lookup"] = "lookup"
    first: Int64
    """The input code of the table's first entry."""
    parameter_roles: ClassVar[tuple[str, ...]] = ("table",)
    learned_roles: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[Family] = Family.ELEMENTWISE
    scaling: ClassVar[Scaling] = Scaling.OWN
    accumulates: ClassVar[bool] = False

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the input's shape."""
        return shapes[0]

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the range of the entries that the input can reach."""
        table, x = parameters["table"], inputs[0].shifted(-self.first)
        require(table.ndim == 1, f"the table has the shape {table.shape}, expected one axis")
        require(
            x.low >= 0 and x.high < len(table),
            f"the table covers the codes {self.first} to {self.first + len(table) - 1}, but the "
            f"input holds {inputs[0].low} to {inputs[0].high}",
        )
        reached = table[x.low : x.high + 1]
        return Interval(int(reached.min()), int(reached.max()))

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Reads the table once for each element."""
        return parameters["table"][inputs[0] - self.first]

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function with one gather."""
        dtype = carrier(self.output_interval(inputs, parameters))
        table = torch.from_numpy(parameters["table"]).to(device, dtype)

        def run(x: torch.Tensor) -> torch.Tensor:
            return table[x.to(torch.int64) - self.first]

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one read of the table for each element."""
        return LaneOperations(lookups=math.prod(shapes[0]))
