"""The float operations that transformers add to those of convolutional networks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.graph.operations import Constants, Operation


@dataclass(frozen=True)
class Softmax(Operation):
    """Over the last axis. Where a second input, or the constant `mask`, is 0, no part is taken.

    A row of which no part is taken is 0.
    """

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One softmax."""
        hidden = [mask == 0 for mask in (*inputs[1:], *constants.values())]
        if not hidden:
            return torch.softmax(inputs[0], dim=-1)
        away = hidden[0] if len(hidden) == 1 else hidden[0] | hidden[1]
        shares = torch.softmax(inputs[0].masked_fill(away, -math.inf), dim=-1)
        return shares.masked_fill(away, 0.0)


@dataclass(frozen=True)
class Normalize(Operation):
    """Layer norm (`centred`) or root-mean-square norm of the last axis; constants `gain`, `bias`.

    `(x - mean) / sqrt(mean((x - mean)**2) + epsilon) * gain + bias`, the mean 0 if not centred.
    """

    centred: bool
    epsilon: float
    takes_clamp: ClassVar[bool] = True

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One norm."""
        x, gain, bias = inputs[0], constants["gain"], constants["bias"]
        if self.centred:
            return F.layer_norm(x, gain.shape, gain, bias, self.epsilon)
        size = x.square().mean(dim=-1, keepdim=True) + self.epsilon
        return x * torch.rsqrt(size) * gain + bias


@dataclass(frozen=True)
class Embedding(Operation):
    """Rows of the constant `table` [V, C] that an integer input names."""

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One gather."""
        return constants["table"][inputs[0].to(torch.int64)]
