"""Operations of transformers: softmax, norms and embeddings."""

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
    """A softmax over the last axis, with optional masks.

    Elements are hidden where the second input, or the constant `mask`, is 0. Their output is 0, and
    so is that of a row whose elements are all hidden.
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
        """Returns the last axis."""
        return frozenset({len(shape) - 1})

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the softmax of the visible elements."""
        away = self.hidden(inputs, constants)
        if away is None:
            return torch.softmax(inputs[0], dim=-1)
        shares = torch.softmax(inputs[0].masked_fill(away, -math.inf), dim=-1)
        return shares.masked_fill(away, 0.0)

    def hidden(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor | None:
        """Returns a mask of the hidden elements, or None if there are no masks."""
        hidden = [mask == 0 for mask in (*inputs[1:], *constants.values())]
        if len(hidden) == 2:
            return hidden[0] | hidden[1]
        return hidden[0] if hidden else None


@dataclass(frozen=True)
class Normalize(Operation):
    """A layer norm (`centred`) or a root-mean-square norm of the last axis.

    `(x - mean) / sqrt(mean((x - mean)**2) + epsilon) * gain + bias`, with the constants `gain` and
    `bias`; the mean is taken as 0 if not `centred`.
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
        """Returns the last axis."""
        return frozenset({len(shape) - 1})

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the normalized input."""
        x = inputs[0]
        gain = constants["gain"]
        bias = constants["bias"]
        if self.centred:
            return F.layer_norm(x, gain.shape, gain, bias, self.epsilon)
        size = x.square().mean(dim=-1, keepdim=True) + self.epsilon
        return x * torch.rsqrt(size) * gain + bias


@dataclass(frozen=True)
class Embedding(Operation):
    """The rows of the constant `table` [V, C] at the indices of an integer input."""

    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.NOTHING
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = -1
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = (IntegerUse.ROWS,)
    sums: ClassVar[bool] = False

    def constant_axes(self, role: str, axes: int, rank: int) -> tuple[int | None, ...]:
        """Returns None for the rows of the table, and the last axis for its columns."""
        return None, rank - 1

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the rows of the table."""
        return constants["table"][inputs[0].to(torch.int64)]
