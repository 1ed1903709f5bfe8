"""Products with weights, of two matrices, and with a number for each channel."""

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
    """Base class of layers: products with `weight`, whose rows are output channels, and `bias`."""

    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.WEIGHTED
    takes_clamp: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    moves: ClassVar[bool] = False
    factor_role: ClassVar[str] = "weight"
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = True

    def constant_axes(self, role: str, axes: int, rank: int) -> tuple[int | None, ...]:
        """Returns the axis of the output channels, along which the first axis runs."""
        return (self.channels_in(rank), *(None,) * (axes - 1))


@dataclass(frozen=True)
class Convolution(Layer):
    """A convolution over one or two axes.

    Its constants are `weight` [O, I/groups, *kernel] and `bias` [O].
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    channel_axis: ClassVar[int | None] = 1

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the axes of the window, and that of the channels unless it is depthwise."""
        window = frozenset(range(2, len(shape)))
        return window if self.groups == shape[1] else window | {1}

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the convolution of the input, padded with zeros."""
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
    """A linear layer along the last axis, with constants `weight` [O, I] and `bias` [O]."""

    channel_axis: ClassVar[int | None] = -1

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the last axis."""
        return frozenset({len(shape) - 1})

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the product with the weight, plus the bias."""
        return F.linear(inputs[0], constants["weight"], constants["bias"])


@dataclass(frozen=True)
class Matmul(Operation):
    """A matrix product of two edges times `factor`, which becomes part of the rescaling."""

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
        """The factor of the products."""
        return self.factor

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the column axis of the first matrices, or the row axis of the second."""
        return frozenset({len(shape) - (1 if position == 0 else 2)})

    def aligned(self, position: int, x: Tensor) -> Tensor:
        """Returns matrices as [rows, columns, 1] and [1, rows, columns]."""
        return x.unsqueeze(-1 if position == 0 else -3)

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the matrix product times the factor."""
        product = torch.matmul(*inputs)
        return product if self.factor == 1 else product * self.factor


@dataclass(frozen=True)
class ChannelAffine(Operation):
    """A factor and an addend per channel, `x * weight[c] + bias[c]`, along axis 1 or the last one.

    It is a batch norm in inference, or a layer scale of a transformer. A pass folds it into a layer
    or replaces it.
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

    def constant_axes(self, role: str, axes: int, rank: int) -> tuple[int | None, ...]:
        """Returns the axis of the channels."""
        return (self.axis,)

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns `x * weight[c] + bias[c]`."""
        trailing = (1,) * (inputs[0].ndim - 1 - self.axis)
        weight, bias = (constants[role].reshape(-1, *trailing) for role in ("weight", "bias"))
        return inputs[0] * weight + bias
