"""What a graph starts from: inputs and constants; and copies."""

from collections.abc import Sequence
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
class Input(Operation):
    """An input of the model."""

    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.NOTHING
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = None
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = False


@dataclass(frozen=True)
class Tokens(Input):
    """An integer input: numbers of rows of a table, or a mask. It is code, and has no scale."""

    output_scale: ClassVar[OutputScale] = OutputScale.NONE


@dataclass(frozen=True)
class Constant(Operation):
    """A tensor that no input changes, such as a positional embedding: constant `value`."""

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
        """The constant."""
        return constants["value"]


@dataclass(frozen=True)
class Copy(Operation):
    """Its input again, in a format of its own: what layers read of a wider stream."""

    output_scale: ClassVar[OutputScale] = OutputScale.OWN
    accumulates: ClassVar[Accumulates] = Accumulates.CODES
    takes_clamp: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = None
    factor_role: ClassVar[str] = ""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]] = ()
    sums: ClassVar[bool] = False

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """The input."""
        return inputs[0]
