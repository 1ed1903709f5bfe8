"""Tables that codes are looked up in: Cast, Sub or Add, and Gather between Q and DQ."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from photomask.chip.conversion.builder import Conversion, Scale
from photomask.chip.conversion.tables import convert_pointwise
from photomask.chip.graph import Node
from photomask.chip.graph.operations import Pointwise, PointwiseFunction
from photomask.chip.onnx_import.call import Call
from photomask.chip.onnx_import.values import (
    CannotImport,
    Chosen,
    Codes,
    Dequantized,
    Floats,
    Integers,
    Positions,
    Real,
    Value,
)

MOST_ENTRIES = (1 << 16) + 1
"""One for each code of 16 bits, and the end of the last line between two."""


@dataclass(frozen=True)
class TableFunction(Pointwise):
    """A function that the file has as a table, perhaps with other functions behind it.

    Attributes:
        first: the code of the first entry.
        last: the code of the last entry; codes outside must not occur.
    """

    first: int
    last: int


@dataclass(frozen=True)
class _Table:
    """The function of real numbers whose values at the codes of a scale are a table's entries."""

    entries: Tensor
    first: int
    scale: Scale

    def __call__(self, x: Tensor) -> Tensor:
        positions = torch.round(x / self.scale.scale) + self.scale.zero_point - self.first
        return self.entries[positions.clamp(0, len(self.entries) - 1).to(torch.int64)]


def cast_codes(call: Call, codes: Codes) -> Value:
    """Codes as the numbers of a table's entries."""
    if call.integer("to", 0) not in (6, 7):
        raise CannotImport("it casts codes, and not to int32 or int64")
    return Positions(codes.node)


def moved_positions(call: Call, sign: int) -> Value | None:
    """Adds a constant integer to positions, or subtracts it; None if it has none to add to."""
    value, constant = call.value(0), call.value(1)
    if sign > 0 and isinstance(constant, Positions):
        value, constant = constant, value
    if not isinstance(value, Positions):
        return None
    if not isinstance(constant, Integers) or constant.array.size != 1:
        raise CannotImport("it adds to codes what is not one constant integer")
    if constant.array.ndim > len(call.builder.nodes[value.node].shape):
        raise CannotImport("its constant adds axes before the batch")
    added = int(constant.array.reshape(()))
    if abs(added) > MOST_ENTRIES:
        raise CannotImport(f"it moves codes by {added}")
    return Positions(value.node, value.offset + sign * added)


def chosen(call: Call, positions: Positions) -> Value:
    """Entries of a constant table: codes, or real numbers that a QuantizeLinear follows."""
    table = call.value(0)
    if not isinstance(table, Integers | Floats):
        raise CannotImport("it chooses by codes from what is no constant table")
    if table.array.ndim != 1 or call.axis(call.integer("axis", 0), 1) != 0:
        raise CannotImport(f"it chooses by codes from a table of shape {table.array.shape}")
    if not 1 <= table.array.size <= MOST_ENTRIES:
        raise CannotImport(f"its table has {table.array.size} entries; at most {MOST_ENTRIES}")
    if isinstance(table, Integers):
        return Chosen(positions, table)
    return _tabulated(call, positions, table.array)


def dequantized(call: Call, value: Chosen, constant: Dequantized) -> Value:
    """The real numbers of chosen codes, which are exact: they are the scale's own."""
    if constant.scale.size != 1:
        raise CannotImport("a table of codes with more than one scale")
    if constant.format.bits > 16:
        raise CannotImport(f"a table of codes of {constant.format.bits} bits")
    found = _tabulated(call, value.positions, constant.real())
    scale, zero_point = float(constant.scale.reshape(())), int(constant.zero_point.reshape(()))
    call.builder.set_scale(found.node, Scale(scale, zero_point, constant.format))
    return Real(found.node, exact=True)


def _tabulated(call: Call, positions: Positions, entries: np.ndarray) -> Real:
    scale = call.builder.scale(positions.node)
    if scale is None:
        raise CannotImport("no QuantizeLinear or DequantizeLinear says what its codes mean")
    first = -positions.offset
    table = _Table(torch.from_numpy(entries.astype(np.float64)), first, scale)
    operation = TableFunction(
        (PointwiseFunction("table", table),), first=first, last=first + len(entries) - 1
    )
    return call.emit(operation, [positions.node])


def convert_table(conversion: Conversion, node: Node, operation: TableFunction) -> None:
    """Converts a function that the file has as a table.

    Raises:
        ValueError: a code may lie outside the table.
    """
    codes = conversion.edges[node.inputs[0]].interval
    if codes.low < operation.first or codes.high > operation.last:
        raise ValueError(
            f"its table holds the codes {operation.first} to {operation.last}, but they reach "
            f"{codes.low} to {codes.high}"
        )
    convert_pointwise(conversion, node, operation)
