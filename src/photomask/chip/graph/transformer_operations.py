"""The float operations that transformers add to those of convolutional networks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.graph.operations import Constants, Operation
from photomask.chip.quantizers.straight_through import round_half_even, stand_in

EXPONENT_BITS = 15
"""A softmax in integers has exponents up to `2**EXPONENT_BITS`, and its result as many bits."""
RECIPROCAL_BITS = 40
"""It multiplies them by `2**RECIPROCAL_BITS // sum`."""


@dataclass(frozen=True)
class Softmax(Operation):
    """Over the last axis. Where a second input, or the constant `mask`, is 0, no part is taken.

    A row of which no part is taken is 0.
    """

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One softmax."""
        away = self._hidden(inputs, constants)
        if away is None:
            return torch.softmax(inputs[0], dim=-1)
        shares = torch.softmax(inputs[0].masked_fill(away, -math.inf), dim=-1)
        return shares.masked_fill(away, 0.0)

    def compute_quantized(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """As the integer operator does: exponents, reciprocal and shares are rounded.

        Scores of one scale differ by whole numbers of it, so the exponents are those of its table.
        The gradient is that of the softmax of the rounded exponents.
        """
        x, away = inputs[0], self._hidden(inputs, constants)
        seen = x if away is None else x.masked_fill(away, torch.finfo(x.dtype).min)
        exact = torch.exp(seen - seen.detach().amax(dim=-1, keepdim=True)) * 2.0**EXPONENT_BITS
        exact = exact if away is None else exact.masked_fill(away, 0.0)
        exponents = round_half_even(exact)
        total = exponents.sum(dim=-1, keepdim=True).clamp(min=1.0)
        with torch.no_grad():
            reciprocal = torch.floor(2.0**RECIPROCAL_BITS / total)
            shift = RECIPROCAL_BITS - EXPONENT_BITS
            units = torch.floor((exponents * reciprocal + 2.0 ** (shift - 1)) * 2.0**-shift)
        return stand_in(units * 2.0**-EXPONENT_BITS, exponents / total)

    def _hidden(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor | None:
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
