"""Lowers concatenations of tensors along an axis."""

import math
from typing import Any

from torch import Tensor

from photomask.chip.graph.builder import (
    BatchBehind,
    Builder,
    Call,
    CannotLower,
    EdgeName,
    Value,
)
from photomask.chip.graph.lowerings.registry import BatchAxis, lowers
from photomask.chip.graph.operations import Concatenate, Constant, Reshape


def without_empty(builder: Builder, items: Any) -> list[Any]:
    """Returns the tensors to concatenate without empty ones, unless all are empty."""
    return [item for item in items if _elements(builder, item)] or list(items)


def _elements(builder: Builder, item: object) -> int:
    if isinstance(item, BatchBehind):
        return math.prod(builder.shapes[item.edge])
    if isinstance(item, EdgeName):
        return math.prod(builder.shapes[item])
    return item.numel() if isinstance(item, Tensor) else 1


@lowers("cat", "concat", "concatenate", batch=BatchAxis.JOINS, is_fresh=True)
def _concatenate(call: Call) -> Value:
    items: Any = call["tensors"]
    if len(items) == 1:
        return call.builder.as_edge(items[0], call)
    rank = len(call.result_shape)
    axis = int(call["dim"]) % rank  # type: ignore[call-overload]
    if axis == 0:
        raise CannotLower("it concatenates along the batch axis")
    if call.result_shape[0] > 1 and any(isinstance(item, Tensor) for item in items):
        return _join_rows(call, items, axis)
    return call.emit(Concatenate(axis), [call.builder.as_edge(item, call) for item in items])


def _join_rows(call: Call, items: list[Any], axis: int) -> Value:
    """Concatenates rows of a sample, such as heads, with constants, which all samples share.

    For the concatenation the rows become an axis, so a constant may differ between rows.
    """
    rows, *others = call.result_shape
    parts = []
    for item in items:
        if isinstance(item, Tensor):
            value = item.reshape(-1, rows, *item.shape[1:])
            if not bool((value == value[:1]).all()):
                raise CannotLower("a constant operand differs from sample to sample")
            parts.append(call.emit(Constant(), [], {"value": value[:1]}))
        else:
            edge = call.builder.as_edge(item, call)
            parts.append(call.emit(Reshape((rows, *call.builder.shapes[edge][1:])), [edge]))
    joined = call.emit(Concatenate(axis + 1), parts)
    return call.emit(Reshape(tuple(others)), [joined])
