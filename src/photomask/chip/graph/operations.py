"""The float operations that a captured model is made of.

About fifteen kinds, whatever the model calls them. An operation computes in float; which integer
operators stand for it is decided in `photomask.chip.conversion`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

Constants = Mapping[str, Tensor]


@dataclass(frozen=True)
class Operation:
    """A function of edges and constant tensors."""

    keeps_scale: ClassVar[bool] = False
    """True: values are moved or selected, so the output has its input's scale."""
    decides_scale: ClassVar[bool] = True
    """True: a quantizer of its own gives the output its scale."""
    takes_clamp: ClassVar[bool] = False
    """True: a following ReLU or clamp becomes the bounds of its requantization."""

    @property
    def kind(self) -> str:
        """The word that recipes use: `convolution`, `max_pool`, …."""
        name = type(self).__name__
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the float result."""
        raise NotImplementedError

    def compute_quantized(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns what integers compute of quantized inputs, before the result is quantized."""
        return self.compute(inputs, constants)


@dataclass(frozen=True)
class Input(Operation):
    """An input of the model."""


@dataclass(frozen=True)
class Tokens(Input):
    """An integer input: numbers of rows of a table, or a mask. It is code, and has no scale."""

    decides_scale: ClassVar[bool] = False


@dataclass(frozen=True)
class Constant(Operation):
    """A tensor that no input changes, such as a positional embedding: constant `value`."""

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """The constant."""
        return constants["value"]


@dataclass(frozen=True)
class Copy(Operation):
    """Its input again, in a format of its own: what layers read of a wider stream."""

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """The input."""
        return inputs[0]


@dataclass(frozen=True)
class Convolution(Operation):
    """Over one or two axes; constants `weight` [O, I/groups, *kernel] and `bias` [O]."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    takes_clamp: ClassVar[bool] = True

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
class Linear(Operation):
    """Product of the last axis with constant `weight` [O, I], plus `bias` [O]."""

    takes_clamp: ClassVar[bool] = True

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One matrix product."""
        return F.linear(inputs[0], constants["weight"], constants["bias"])


@dataclass(frozen=True)
class Matmul(Operation):
    """Matrix product of two edges, times `factor`, which the rescaling takes in."""

    factor: float = 1.0
    takes_clamp: ClassVar[bool] = True

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

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Scale and offset per channel."""
        trailing = (1,) * (inputs[0].ndim - 1 - self.axis)
        weight, bias = (constants[role].reshape(-1, *trailing) for role in ("weight", "bias"))
        return inputs[0] * weight + bias


@dataclass(frozen=True)
class Add(Operation):
    """Signed sum of edges that broadcast."""

    signs: tuple[int, ...]
    takes_clamp: ClassVar[bool] = True

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One addition or subtraction after the other."""
        total = inputs[0] if self.signs[0] > 0 else -inputs[0]
        for x, sign in zip(inputs[1:], self.signs[1:], strict=True):
            total = total + x if sign > 0 else total - x
        return total


@dataclass(frozen=True)
class Multiply(Operation):
    """Product of two edges that broadcast."""

    takes_clamp: ClassVar[bool] = True

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One product."""
        return inputs[0] * inputs[1]


@dataclass(frozen=True)
class Concatenate(Operation):
    """Joins edges along `axis`; a constant is repeated for every sample."""

    axis: int

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One concatenation."""
        batch = max(len(x) for x in inputs)
        return torch.cat([x.expand(batch, *x.shape[1:]) for x in inputs], dim=self.axis)


@dataclass(frozen=True)
class PointwiseFunction:
    """A named function of one number."""

    name: str
    apply: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pointwise(Operation):
    """Functions of one number, first to last; one lookup table in the end."""

    functions: tuple[PointwiseFunction, ...]

    @property
    def kind(self) -> str:
        """The first function's name."""
        return self.functions[0].name

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One function after the other."""
        x = inputs[0]
        for function in self.functions:
            x = function.apply(x)
        return x


@dataclass(frozen=True)
class Clamp(Operation):
    """`min(high, max(low, x))`: ReLU, ReLU6 and clamp.

    Where the bounds cross, that is `high` everywhere, so `low` becomes `high`: the bounds of a
    clamp are always an interval.
    """

    low: float
    high: float
    keeps_scale: ClassVar[bool] = True
    decides_scale: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", min(self.low, self.high))

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One clamp; only the bounds that exist."""
        return self.apply(inputs[0])

    def apply(self, x: Tensor) -> Tensor:
        """Returns the clamped tensor."""
        low = None if self.low == -math.inf else self.low
        high = None if self.high == math.inf else self.high
        return x if low is None and high is None else x.clamp(low, high)


@dataclass(frozen=True)
class MaxPool(Operation):
    """Maximum over windows of the last axes."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool
    keeps_scale: ClassVar[bool] = True
    decides_scale: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One pooling."""
        pool = F.max_pool2d if len(self.kernel) == 2 else F.max_pool1d
        return pool(
            inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )


@dataclass(frozen=True)
class AveragePool(Operation):
    """Average over windows of the last axes."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool
    count_padding: bool
    divisor: int | None
    takes_clamp: ClassVar[bool] = True

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One pooling."""
        if len(self.kernel) == 1:
            return F.avg_pool1d(
                inputs[0],
                self.kernel,
                self.stride,
                self.padding,
                self.ceil_mode,
                self.count_padding,
            )
        return F.avg_pool2d(
            inputs[0],
            self.kernel,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_padding,
            self.divisor,
        )


@dataclass(frozen=True)
class AdaptiveAveragePool(Operation):
    """Average over `output_size` windows that cover the last axes, perhaps unevenly."""

    output_size: tuple[int, ...]
    takes_clamp: ClassVar[bool] = True

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One pooling."""
        pool: Any = F.adaptive_avg_pool2d if len(self.output_size) == 2 else F.adaptive_avg_pool1d
        return pool(inputs[0], self.output_size)


@dataclass(frozen=True)
class Mean(Operation):
    """Mean (or, with `divide` false, sum) over whole axes."""

    axes: tuple[int, ...]
    keep_axes: bool
    divide: bool = True
    takes_clamp: ClassVar[bool] = True

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One reduction."""
        reduce = torch.mean if self.divide else torch.sum
        return reduce(inputs[0], dim=self.axes, keepdim=self.keep_axes)


@dataclass(frozen=True)
class Reshape(Operation):
    """Same elements in the same order; `shape` holds all axes after the first."""

    shape: tuple[int, ...]
    keeps_scale: ClassVar[bool] = True
    decides_scale: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One reshape."""
        return inputs[0].reshape(-1, *self.shape)


@dataclass(frozen=True)
class Permute(Operation):
    """New order of the axes."""

    order: tuple[int, ...]
    keeps_scale: ClassVar[bool] = True
    decides_scale: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One permutation."""
        return inputs[0].permute(self.order)


@dataclass(frozen=True)
class Slice(Operation):
    """`start:stop:step` along `axis`."""

    axis: int
    start: int
    stop: int
    step: int
    keeps_scale: ClassVar[bool] = True
    decides_scale: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One slice."""
        index = (*(slice(None),) * self.axis, slice(self.start, self.stop, self.step))
        return inputs[0][index]


@dataclass(frozen=True)
class Pad(Operation):
    """Constant elements before and after, per axis; negative amounts crop."""

    amounts: tuple[tuple[int, int], ...]
    value: float
    keeps_scale: ClassVar[bool] = True
    decides_scale: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One pad."""
        margins = [amount for pair in reversed(self.amounts) for amount in pair]
        return F.pad(inputs[0], margins, value=self.value)


@dataclass(frozen=True)
class Gather(Operation):
    """Elements `index` of `axis`: nearest upsampling, flips, reflected padding."""

    axis: int
    index: tuple[int, ...]
    keeps_scale: ClassVar[bool] = True
    decides_scale: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One selection."""
        return inputs[0].index_select(self.axis, torch.tensor(self.index, device=inputs[0].device))
