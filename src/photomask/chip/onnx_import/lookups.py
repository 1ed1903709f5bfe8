"""Imports table lookups: Cast, Sub or Add, and Gather from a constant table, between Q and DQ."""

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
"""The most entries of a table: one for each code of 16 bits, and the end of the last segment."""


@dataclass(frozen=True)
class TableFunction(Pointwise):
    """A function that the file holds as a table, possibly followed by other functions.

    Attributes:
        first: the code of the first entry.
        last: the code of the last entry; codes outside must not occur.
    """

    first: int
    last: int


@dataclass(frozen=True)
class _Table:
    """The function of real numbers that has a table's entries at the codes of a scale."""

    entries: Tensor
    first: int
    scale: Scale

    def __call__(self, x: Tensor) -> Tensor:
        positions = torch.round(x / self.scale.scale) + self.scale.zero_point - self.first
        return self.entries[positions.clamp(0, len(self.entries) - 1).to(torch.int64)]


def cast_codes(call: Call, codes: Codes) -> Value:
    """Returns codes as indices of a table's entries."""
    if call.integer("to", 0) not in (6, 7):
        raise CannotImport("it casts codes, which is supported to int32 or int64 only")
    return Positions(codes.node)


def moved_positions(call: Call, sign: int) -> Value | None:
    """Returns table indices plus or minus a constant integer; None if no input holds indices."""
    value, constant = call.value(0), call.value(1)
    if sign > 0 and isinstance(constant, Positions):
        value, constant = constant, value
    if not isinstance(value, Positions):
        return None
    if not isinstance(constant, Integers) or constant.array.size != 1:
        raise CannotImport("it adds to codes; only one constant integer may be added to them")
    if constant.array.ndim > len(call.builder.nodes[value.node].shape):
        raise CannotImport("its constant adds axes before the batch")
    added = int(constant.array.reshape(()))
    if abs(added) > MOST_ENTRIES:
        raise CannotImport(f"it adds {added} to codes; at most {MOST_ENTRIES} is supported")
    return Positions(value.node, value.offset + sign * added)


def chosen(call: Call, positions: Positions) -> Value:
    """Returns the entries of a constant table at given indices.

    The entries are codes, or real numbers that a QuantizeLinear reads.
    """
    table = call.value(0)
    if not isinstance(table, Integers | Floats):
        raise CannotImport("it selects by codes, which is supported from a constant table only")
    if table.array.ndim != 1 or call.axis(call.integer("axis", 0), 1) != 0:
        raise CannotImport(
            f"it selects by codes from a table of shape {table.array.shape}, which must have one "
            "axis"
        )
    if not 1 <= table.array.size <= MOST_ENTRIES:
        raise CannotImport(
            f"its table has {table.array.size} entries; expected 1 to {MOST_ENTRIES}"
        )
    if isinstance(table, Integers):
        return Chosen(positions, table)
    return _tabulated(call, positions, table.array)


def dequantized(call: Call, value: Chosen, constant: Dequantized) -> Value:
    """Returns the dequantized entries of a table of codes."""
    if constant.scale.size != 1:
        raise CannotImport("its table of codes must have one scale, but has several")
    if constant.format.bits > 16:
        raise CannotImport(
            f"its table holds codes of {constant.format.bits} bits; at most 16 are supported"
        )
    found = _tabulated(call, value.positions, constant.real())
    scale, zero_point = float(constant.scale.reshape(())), int(constant.zero_point.reshape(()))
    call.builder.set_scale(found.node, Scale(scale, zero_point, constant.format))
    return Real(found.node, exact=True)


def _tabulated(call: Call, positions: Positions, entries: np.ndarray) -> Real:
    scale = call.builder.scale(positions.node)
    if scale is None:
        raise CannotImport("no QuantizeLinear or DequantizeLinear gives its codes a scale")
    first = -positions.offset
    table = _Table(torch.from_numpy(entries.astype(np.float64)), first, scale)
    operation = TableFunction(
        (PointwiseFunction("table", table),), first=first, last=first + len(entries) - 1
    )
    return call.emit(operation, [positions.node])


def convert_table(conversion: Conversion, node: Node, operation: TableFunction) -> None:
    """Adds the integer steps of a function that the file holds as a table.

    Raises:
        ValueError: a code can lie outside the table.
    """
    codes = conversion.edges[node.inputs[0]].interval
    if codes.low < operation.first or codes.high > operation.last:
        raise ValueError(
            f"its table holds the codes {operation.first} to {operation.last}, but they reach "
            f"{codes.low} to {codes.high}"
        )
    convert_pointwise(conversion, node, operation)
