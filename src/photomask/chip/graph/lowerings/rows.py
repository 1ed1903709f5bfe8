"""Emits operations of a constant and an edge that has several rows per sample, such as heads."""

from torch import Tensor

from photomask.chip.graph.builder import Call, CannotLower, EdgeName
from photomask.chip.graph.operations import Constant, Operation, Reshape


def emit_of_two(call: Call, operation: Operation, first: object, second: object) -> EdgeName:
    """Emits an operation of two operands, of which one may be constant, and returns its edge.

    A model may repeat a constant for every sample and then treat its rows as samples, as attention
    does with the heads of a learned query. For this operation the rows become an axis, so the
    constant may differ between rows.

    Raises:
        CannotLower: a constant differs from sample to sample.
    """
    rows, *others = call.result_shape
    repeated = rows * call.builder.batch
    operands = (first, second)
    if rows == 1 or not any(_has_rows(x, repeated, len(others) + 1) for x in operands):
        return call.emit(operation, [call.builder.as_edge(x, call) for x in operands])
    parts = [_with_axis(call, x, rows) for x in operands]
    return call.emit(Reshape(tuple(others)), [call.emit(operation, parts)])


def _has_rows(value: object, repeated: int, rank: int) -> bool:
    return isinstance(value, Tensor) and value.ndim == rank and len(value) == repeated


def _with_axis(call: Call, value: object, rows: int) -> EdgeName:
    """Returns an operand whose second axis holds the rows of a sample."""
    if not isinstance(value, Tensor):
        edge = call.builder.as_edge(value, call)
        own, *others = call.builder.shapes[edge]
        return call.emit(Reshape((own, *others)), [edge])
    padded = value.reshape((1,) * (len(call.result_shape) - value.ndim) + tuple(value.shape))
    if len(padded) not in (1, rows * call.builder.batch):
        raise CannotLower("a constant operand differs from sample to sample")
    own = 1 if len(padded) == 1 else rows
    samples = padded.reshape(-1, own, *padded.shape[1:])
    if not bool((samples == samples[:1]).all()):
        raise CannotLower("a constant operand differs from sample to sample")
    return call.emit(Constant(), [], {"value": samples[:1]})
