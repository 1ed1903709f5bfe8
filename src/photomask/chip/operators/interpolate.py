"""Any function of one activation, as lines between table entries at distances of a power of two."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from photomask.chip.arithmetic import FLOAT64_EXACT, carrier
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


class Interpolate(Operator):
    """`accumulator = table[i] * 2**step_bits + (table[i + 1] - table[i]) * r`.

    `i = (x - first) >> step_bits` are the high bits of the input, and `r` are its low `step_bits`
    bits. The accumulator is exact: one unit of it is `2**-step_bits` units of the entries, and the
    rescaling that follows is the only rounding. The entries are `2**step_bits` codes apart. The
    table has one more entry at its far end, so `table[i + 1]` always exists.
    """

    kind: Literal["interpolate"] = "interpolate"
    first: Int64
    """The input code of the table's first entry."""
    step_bits: Annotated[int, Field(ge=1, le=16)]
    parameter_roles: ClassVar[tuple[str, ...]] = ("table",)
    learned_roles: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[Family] = Family.ELEMENTWISE
    scaling: ClassVar[Scaling] = Scaling.OWN
    accumulates: ClassVar[bool] = True

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the input's shape."""
        return shapes[0]

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the range of the lines that the input can reach, with their starts and slopes."""
        table, x = parameters["table"], inputs[0].shifted(-self.first)
        require(table.ndim == 1, f"the table has the shape {table.shape}, expected one axis")
        last = (len(table) - 1 << self.step_bits) - 1
        require(
            x.low >= 0 and x.high <= last,
            f"the table covers the codes {self.first} to {self.first + last}, but the input holds "
            f"{inputs[0].low} to {inputs[0].high}",
        )
        reached = table[x.low >> self.step_bits : (x.high >> self.step_bits) + 2]
        slopes = np.diff(reached)
        ends = Interval(int(reached.min()), int(reached.max()))
        change = Interval(min(0, int(slopes.min())), max(0, int(slopes.max())))
        return ends.union(change).scaled(1 << self.step_bits)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes two reads and one product for each element, in int64."""
        table, position = parameters["table"], inputs[0] - self.first
        index, rest = position >> self.step_bits, position & ((1 << self.step_bits) - 1)
        start = table[index]
        return (start << self.step_bits) + (table[index + 1] - start) * rest

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function with two gathers, of starts and of slopes."""
        interval = self.output_interval(inputs, parameters)
        if interval.magnitude > FLOAT64_EXACT:
            return self.wrap_oracle(inputs, parameters, device)
        output = carrier(interval)
        table = torch.from_numpy(parameters["table"])
        starts = (table[:-1] << self.step_bits).to(device, output)
        slopes = table.diff().to(device, output)

        def run(x: torch.Tensor) -> torch.Tensor:
            position = x.to(torch.int64) - self.first
            index, rest = position >> self.step_bits, position & ((1 << self.step_bits) - 1)
            return starts[index] + slopes[index] * rest.to(output)

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one lookup per element, which includes both reads and the product."""
        return LaneOperations(lookups=math.prod(shapes[0]))
