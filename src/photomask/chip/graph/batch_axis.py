"""Handles tensors whose batch is not at axis 0, as in models that put the sequence first.

Inside the float graph the batch is always axis 0. This module lowers reshapes that move the batch,
and operators that work the same wherever the batch is.
"""

import math
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

from torch import Tensor

from photomask.chip.graph.builder import (
    BatchBehind,
    Call,
    CannotLower,
    EdgeName,
    Lowering,
    Value,
)
from photomask.chip.graph.operations import Permute, Reshape


class BatchAxis(Enum):
    """The axes of the model's tensors at which an operator allows the batch."""

    OWN = auto()
    """The lowering itself decides where the batch may be."""
    ANYWHERE = auto()
    """The operator is elementwise, so any axis may hold the batch."""
    BROADCASTS = auto()
    """The operator is elementwise with broadcasting, so a constant's axes move with the batch."""
    NOT_LAST = auto()
    """The operator works along the last axis or its argument `dim`, which must not be the batch."""
    JOINS = auto()
    """The operator concatenates along `dim`; a constant's axes move with the batch."""

    @property
    def moves_constants(self) -> bool:
        """True if the axes of a constant operand correspond to those of the other operands."""
        return self in (BatchAxis.BROADCASTS, BatchAxis.JOINS)

    @property
    def names_axis(self) -> bool:
        """True if the argument `dim`, where it exists, is an axis of the operands."""
        return self in (BatchAxis.NOT_LAST, BatchAxis.JOINS)


def reshape_with_batch(call: Call, given: EdgeName | BatchBehind, shape: tuple[int, ...]) -> Value:
    """Emits a reshape that moves the batch, and returns the result.

    In the model's order of elements, `before` elements of a sample come before the batch. The axis
    of the result that includes the element after them holds the batch, possibly together with some
    of these elements (`outer`) and with rows of the samples.

    Args:
        call: the traced call.
        given: the tensor that is reshaped.
        shape: the shape of the model's result, with all samples.

    Raises:
        CannotLower: the result splits the batch.
    """
    behind = given if isinstance(given, BatchBehind) else BatchBehind(given, 0)
    edge, batch = behind.edge, call.builder.batch
    rows, *others = call.builder.shapes[edge]
    split = behind.axis + (behind.outer > 1)
    before = math.prod(others[:split])
    axis, leading = 0, 1
    while axis < len(shape) and leading * shape[axis] <= before:
        leading *= shape[axis]
        axis += 1
    outer = before // leading
    if axis == len(shape) or before % leading or shape[axis] % (outer * batch):
        raise CannotLower(f"its result of shape {shape} splits the batch over several axes")
    new_rows = shape[axis] // (outer * batch)
    first = (*shape[:axis], *((outer,) if outer > 1 else ()))
    rest = shape[axis + 1 :]
    if rows > 1 and split:
        edge = call.emit(Reshape((rows, *others)), [edge])
        behind_rows = range(2 + split, 2 + len(others))
        edge = call.emit(Permute((0, *range(2, 2 + split), 1, *behind_rows)), [edge])
    if new_rows > 1 and first:
        edge = call.emit(Reshape((*first, new_rows, *rest)), [edge])
        count = len(first)
        behind_rows = range(2 + count, 2 + count + len(rest))
        edge = call.emit(Permute((0, 1 + count, *range(1, 1 + count), *behind_rows)), [edge])
    wanted = (new_rows, *first, *rest)
    if call.builder.shapes[edge] != wanted:
        edge = call.emit(Reshape(wanted[1:]), [edge])
    return BatchBehind(edge, axis, outer) if first else edge


def with_batch_first(call: Call, lowering: Lowering, batch: BatchAxis) -> Value:
    """Lowers a call whose operands have the batch at another axis as if it were axis 0.

    Args:
        call: the traced call.
        lowering: the lowering of the operator, for operands with the batch at axis 0.
        batch: the axes at which the operator allows the batch; with `OWN` nothing is moved.

    Raises:
        CannotLower: the operands have the batch at different axes, or the operator works along it.
    """
    found = {(x.axis, x.outer) for x in _behind(list(call.arguments.values()))}
    if not found or batch is BatchAxis.OWN:
        return lowering(call)
    if len(found) > 1:
        raise CannotLower("its operands have the batch at different axes")
    axis, outer = found.pop()
    rank = call.traced.meta["val"].ndim
    arguments = {
        key: _moved(value, rank, axis, outer, batch.moves_constants)
        for key, value in call.arguments.items()
    }
    if batch.names_axis and "dim" in arguments:
        dim = int(arguments["dim"]) % rank  # type: ignore[call-overload]
        if dim == axis:
            raise CannotLower("it works along the axis of the batch")
        arguments["dim"] = dim + (dim < axis or outer > 1)
    if batch is BatchAxis.NOT_LAST and axis == rank - 1:
        raise CannotLower("its last axis holds the batch")
    edges = [x.edge for x in _behind(list(call.arguments.values()))]
    shape = call.builder.shapes[edges[0]]
    result = lowering(Call(call.builder, call.traced, arguments, shape))
    if not isinstance(result, EdgeName):
        raise CannotLower("it has several results and its batch is not axis 0")
    return BatchBehind(result, axis, outer)


def _behind(values: object) -> Iterator[BatchBehind]:
    if isinstance(values, BatchBehind):
        yield values
    if isinstance(values, (list, tuple)):
        for value in values:
            yield from _behind(value)


def _moved(value: Any, rank: int, axis: int, outer: int, broadcasts: bool) -> Any:
    """Returns an argument with the batch moved to axis 0; constants that broadcast move too."""
    if isinstance(value, BatchBehind):
        return value.edge
    if isinstance(value, list):
        return [_moved(item, rank, axis, outer, broadcasts) for item in value]
    if isinstance(value, EdgeName):
        raise CannotLower(f"the batch of one operand is axis 0, that of another is axis {axis}")
    if not broadcasts or not isinstance(value, Tensor) or value.ndim <= rank - 1 - axis:
        return value
    padded = value.reshape((1,) * (rank - value.ndim) + tuple(value.shape))
    if outer == 1:
        return padded.movedim(axis, 0)
    if padded.shape[axis] != 1:
        raise CannotLower("an axis of an operand holds the batch together with other elements")
    return padded[None]
