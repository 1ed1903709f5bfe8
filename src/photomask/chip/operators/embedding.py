"""Embedding: the input chooses rows of a table."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import Operator, Parameters, Shape, TorchFunction, require
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations


class Embedding(Operator):
    """`y[..., :] = table[x[...], :]`, the vectors of tokens or of positions."""

    kind: Literal["embedding"] = "embedding"
    parameter_roles: ClassVar[tuple[str, ...]] = ("table",)
    learned_roles: ClassVar[tuple[str, ...]] = ("table",)
    family: ClassVar[Family] = Family.ROW
    scaling: ClassVar[Scaling] = Scaling.OWN
    accumulates: ClassVar[bool] = False

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the shape [..., C] for a table [V, C]."""
        table = parameters["table"]
        require(
            table.ndim == 2 and table.size > 0,
            f"the table has the shape {table.shape}, expected [rows, channels] with at least one "
            "element",
        )
        return (*shapes[0], table.shape[1])

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the range of the rows that the input can reach."""
        table, x = parameters["table"], inputs[0]
        require(
            x.low >= 0 and x.high < len(table),
            f"the table has rows 0 to {len(table) - 1}, but the input holds {x.low} to {x.high}",
        )
        reached = table[x.low : x.high + 1]
        return Interval(int(reached.min()), int(reached.max()))

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Reads one row for each element."""
        return parameters["table"][inputs[0]]

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function with one gather."""
        dtype = carrier(self.output_interval(inputs, parameters))
        table = torch.from_numpy(parameters["table"]).to(device, dtype)

        def run(x: torch.Tensor) -> torch.Tensor:
            return table[x.to(torch.int64)]

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one move for each element of each row, because each is written."""
        return LaneOperations(moves=math.prod(self.output_shape(shapes, parameters)))

    def input_lane_axis(self, number: int, shape: Shape) -> int | None:
        """Returns the batch axis, because the numbers of rows have no channels."""
        return 0
