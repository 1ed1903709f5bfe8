"""Elementwise operations: sums, products, functions of one number, and clamps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from photomask.chip.graph.operations.base import (
    Accumulates,
    Constants,
    IntegerUse,
    Operation,
    OutputScale,
)


@dataclass(frozen=True)
class Add(Operation):
    """The signed sum of edges that broadcast."""

    signs: tuple[int, ...]
    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.ALIGNED
    takes_clamp: ClassVar[bool] = True
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = -1
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the signed sum of the inputs."""
        total = inputs[0] if self.signs[0] > 0 else -inputs[0]
        for x, sign in zip(inputs[1:], self.signs[1:], strict=True):
            total = total + x if sign > 0 else total - x
        return total


@dataclass(frozen=True)
class Multiply(Operation):
    """The product of two edges that broadcast."""

    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.PRODUCTS
    takes_clamp: ClassVar[bool] = True
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = -1
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the product of the inputs."""
        return inputs[0] * inputs[1]


@dataclass(frozen=True)
class PointwiseFunction:
    """A named function of one number."""

    name: str
    apply: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pointwise(Operation):
    """Functions of one number, applied in order, which become one lookup table."""

    functions: tuple[PointwiseFunction, ...]
    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.NOTHING
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = None
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """The name of the first function."""
        return self.functions[0].name

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the result of applying the functions in order."""
        x = inputs[0]
        for function in self.functions:
            x = function.apply(x)
        return x


@dataclass(frozen=True)
class Clamp(Operation):
    """The clamp `min(high, max(low, x))`, which is also a ReLU or a ReLU6.

    Where `low` exceeds `high`, the result is `high` everywhere. `low` is then set to `high`, so
    that the bounds of a clamp are always an interval.
    """

    low: float
    high: float
    output_scale: ClassVar[OutputScale] = OutputScale.ROUNDED
    accumulates: ClassVar[Accumulates] = Accumulates.NOTHING
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = None
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = False

    @property
    def makes_values(self) -> bool:
        """True if 0 lies outside the bounds."""
        return self.low > 0 or self.high < 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", min(self.low, self.high))

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the clamped input."""
        return self.apply(inputs[0])

    def apply(self, x: Tensor) -> Tensor:
        """Returns a clamped tensor; infinite bounds are left out."""
        low = None if self.low == -math.inf else self.low
        high = None if self.high == math.inf else self.high
        return x if low is None and high is None else x.clamp(low, high)
