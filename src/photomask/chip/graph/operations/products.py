"""Products: with weights, of two matrices, and with a number for each channel."""

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
class Layer(Operation, abstract=True):
    """Products with the constant `weight`, whose rows are output channels, plus `bias`."""

    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.WEIGHTED
    takes_clamp: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    factor_role: ClassVar[str] = "weight"
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = True


@dataclass(frozen=True)
class Convolution(Layer):
    """Over one or two axes; constants `weight` [O, I/groups, *kernel] and `bias` [O]."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    channel_axis: ClassVar[int | None] = 1

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """The window, and the input channels unless each has an output of its own."""
        window = frozenset(range(2, len(shape)))
        return window if self.groups == shape[1] else window | {1}

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Padding by zeros, then the convolution."""
        x, amount = inputs[0], [before for before, _ in self.padding]
        if any(before != after for before, after in self.padding):
            x = F.pad(x, [m for pair in reversed(self.padding) for m in pair])
            amount = [0] * len(self.padding)
        convolve = F.conv2d if len(self.stride) == 2 else F.conv1d
        return convolve(
            x,
            constants["weight"],
            constants["bias"],
            self.stride,
            amount,
            self.dilation,
            self.groups,
        )


@dataclass(frozen=True)
class Linear(Layer):
    """Product of the last axis with constant `weight` [O, I], plus `bias` [O]."""

    channel_axis: ClassVar[int | None] = -1

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """The last axis."""
        return frozenset({len(shape) - 1})

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One matrix product."""
        return F.linear(inputs[0], constants["weight"], constants["bias"])


@dataclass(frozen=True)
class Matmul(Operation):
    """Matrix product of two edges, times `factor`, which the rescaling takes in."""

    factor: float = 1.0
    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.PRODUCTS
    takes_clamp: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = -1
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = True

    @property
    def product_factor(self) -> float:
        """The factor."""
        return self.factor

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """The columns of the first matrices, the rows of the second."""
        return frozenset({len(shape) - (1 if position == 0 else 2)})

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One matrix product."""
        product = torch.matmul(*inputs)
        return product if self.factor == 1 else product * self.factor


@dataclass(frozen=True)
class ChannelAffine(Operation):
    """`x * weight[c] + bias[c]` along `axis`, 1 or the last one; folded by a pass.

    Batch norm in inference, and what transformers scale their layers by.
    """

    axis: int = 1
    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.NOTHING
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = None
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Scale and offset per channel."""
        trailing = (1,) * (inputs[0].ndim - 1 - self.axis)
        weight, bias = (constants[role].reshape(-1, *trailing) for role in ("weight", "bias"))
        return inputs[0] * weight + bias
