"""Elements moved, joined, selected and padded."""

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
class Moving(Operation, abstract=True):
    """The elements of its input, or some of them, wherever they go; integers as well."""

    output_scale: ClassVar[OutputScale] = OutputScale.KEPT
    accumulates: ClassVar[Accumulates] = Accumulates.NOTHING
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = True
    channel_axis: ClassVar[int | None] = None
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = (IntegerUse.MOVES,)
    sums: ClassVar[bool] = False


@dataclass(frozen=True)
class Reshape(Moving):
    """Same elements in the same order; `shape` holds all axes after the first."""

    shape: tuple[int, ...]

    def axis_behind(self, axis: int) -> int | None:
        """An axis may be split or joined; that of the batch is not."""
        return 0 if axis == 0 else None

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One reshape."""
        return inputs[0].reshape(-1, *self.shape)


@dataclass(frozen=True)
class Permute(Moving):
    """New order of the axes."""

    order: tuple[int, ...]

    def axis_behind(self, axis: int) -> int | None:
        """Where the order puts it."""
        return self.order.index(axis)

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One permutation."""
        return inputs[0].permute(self.order)


@dataclass(frozen=True)
class Slice(Moving):
    """`start:stop:step` along `axis`."""

    axis: int
    start: int
    stop: int
    step: int

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One slice."""
        index = (*(slice(None),) * self.axis, slice(self.start, self.stop, self.step))
        return inputs[0][index]


@dataclass(frozen=True)
class Gather(Moving):
    """Elements `index` of `axis`: nearest upsampling, flips, reflected padding."""

    axis: int
    index: tuple[int, ...]

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One selection."""
        return inputs[0].index_select(self.axis, torch.tensor(self.index, device=inputs[0].device))


@dataclass(frozen=True)
class Pad(Operation):
    """Constant elements before and after, per axis; negative amounts crop."""

    amounts: tuple[tuple[int, int], ...]
    value: float
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
        """True unless it pads with 0, or below every value."""
        return self.value != 0 and math.isfinite(self.value)

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One pad."""
        margins = [amount for pair in reversed(self.amounts) for amount in pair]
        return F.pad(inputs[0], margins, value=self.value)


@dataclass(frozen=True)
class Concatenate(Operation):
    """Joins edges along `axis`; a constant is repeated for every sample."""

    axis: int
    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.CODES
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = True
    channel_axis: ClassVar[int | None] = None
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """One concatenation."""
        batch = max(len(x) for x in inputs)
        return torch.cat([x.expand(batch, *x.shape[1:]) for x in inputs], dim=self.axis)
