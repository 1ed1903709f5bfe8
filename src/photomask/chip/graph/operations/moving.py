"""Operations that move, concatenate, select and pad elements."""

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
    """Base class of operations that move or select elements of one input, also integers."""

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
    """A reshape that keeps the batch as axis 0; `shape` holds the axes after it."""

    shape: tuple[int, ...]

    def axis_behind(self, axis: int) -> int | None:
        """Returns 0 for the batch axis, and None for others, which may be split or merged."""
        return 0 if axis == 0 else None

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the reshaped input."""
        return inputs[0].reshape(-1, *self.shape)


@dataclass(frozen=True)
class Permute(Moving):
    """A permutation of the axes."""

    order: tuple[int, ...]

    def axis_behind(self, axis: int) -> int | None:
        """Returns the axis of the output that the permutation moves `axis` to."""
        return self.order.index(axis)

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the input with permuted axes."""
        return inputs[0].permute(self.order)


@dataclass(frozen=True)
class Slice(Moving):
    """The slice `start:stop:step` along `axis`."""

    axis: int
    start: int
    stop: int
    step: int

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the slice of the input."""
        index = (*(slice(None),) * self.axis, slice(self.start, self.stop, self.step))
        return inputs[0][index]


@dataclass(frozen=True)
class Gather(Moving):
    """The elements `index` along `axis`, as for nearest upsampling, flips or reflected padding."""

    axis: int
    index: tuple[int, ...]

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the selected elements of the input."""
        return inputs[0].index_select(self.axis, torch.tensor(self.index, device=inputs[0].device))


@dataclass(frozen=True)
class Pad(Operation):
    """Padding with a constant before and after each axis; negative amounts crop."""

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
        """True unless it pads with 0 or an infinity."""
        return self.value != 0 and math.isfinite(self.value)

    def mixed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the padded axes."""
        return frozenset(axis for axis, pair in enumerate(self.amounts) if pair != (0, 0))

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the padded input."""
        margins = [amount for pair in reversed(self.amounts) for amount in pair]
        return F.pad(inputs[0], margins, value=self.value)


@dataclass(frozen=True)
class Concatenate(Operation):
    """A concatenation of edges along `axis`; a constant is repeated for every sample."""

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
        """Returns the concatenated inputs."""
        batch = max(len(x) for x in inputs)
        return torch.cat([x.expand(batch, *x.shape[1:]) for x in inputs], dim=self.axis)
