"""What transformers add: softmax, norms and tables of rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.graph.operations.base import (
    Accumulates,
    Constants,
    IntegerUse,
    Operation,
    OutputScale,
)


@dataclass(frozen=True)
class Softmax(Operation):
    """Over the last axis. Where a second input, or the constant `mask`, is 0, no part is taken.

    A row of which no part is taken is 0.
    """

    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.SHARES
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = None
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = (None, IntegerUse.MASK)
    sums: ClassVar[bool] = True

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """The last axis."""
        return frozenset({len(shape) - 1})

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One softmax."""
        away = self.hidden(inputs, constants)
        if away is None:
            return torch.softmax(inputs[0], dim=-1)
        shares = torch.softmax(inputs[0].masked_fill(away, -math.inf), dim=-1)
        return shares.masked_fill(away, 0.0)

    def hidden(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor | None:
        """Returns which elements take no part; None if all do."""
        hidden = [mask == 0 for mask in (*inputs[1:], *constants.values())]
        if len(hidden) == 2:
            return hidden[0] | hidden[1]
        return hidden[0] if hidden else None


@dataclass(frozen=True)
class Normalize(Operation):
    """Layer norm (`centred`) or root-mean-square norm of the last axis; constants `gain`, `bias`.

    `(x - mean) / sqrt(mean((x - mean)**2) + epsilon) * gain + bias`, the mean 0 if not centred.
    """

    centred: bool
    epsilon: float
    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.NORMALS
    takes_clamp: ClassVar[bool] = True
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = -1
    factor_role: ClassVar[str] = "gain"
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = True

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """The last axis."""
        return frozenset({len(shape) - 1})

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One norm."""
        x = inputs[0]
        gain = constants["gain"]
        bias = constants["bias"]
        if self.centred:
            return F.layer_norm(x, gain.shape, gain, bias, self.epsilon)
        size = x.square().mean(dim=-1, keepdim=True) + self.epsilon
        return x * torch.rsqrt(size) * gain + bias


@dataclass(frozen=True)
class Embedding(Operation):
    """Rows of the constant `table` [V, C] that an integer input names."""

    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.NOTHING
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = -1
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = (IntegerUse.ROWS,)
    sums: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One gather."""
        return constants["table"][inputs[0].to(torch.int64)]
