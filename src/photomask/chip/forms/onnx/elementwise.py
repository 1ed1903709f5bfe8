"""What each integer operator becomes in standard ONNX."""

from collections.abc import Callable

import numpy as np

from photomask.chip.arithmetic import FLOAT64_EXACT, round_shift
from photomask.chip.formats import Interval
from photomask.chip.forms.onnx.context import IntegerGraph
from photomask.chip.forms.onnx.functions import clamp, requantize, shift_right, window_sum
from photomask.chip.forms.onnx.pooling import average_pool, max_pool
from photomask.chip.forms.onnx.products import convolution, linear, matmul
from photomask.chip.forms.onnx.transformers import (
    emit_embedding,
    emit_normalize,
    emit_softmax,
)
from photomask.chip.operators import (
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    Constant,
    Convolution,
    Embedding,
    Gather,
    Interpolate,
    Linear,
    Lookup,
    Matmul,
    MaxPool,
    Multiply,
    Normalize,
    Operator,
    Pad,
    Parameters,
    Permute,
    Requantize,
    Reshape,
    Slice,
    Softmax,
    Sum,
)
from photomask.chip.program import Step


def emit(graph: IntegerGraph, step: Step) -> None:
    """Adds the nodes that compute a step, the last one under its name."""
    EMITTERS[type(step.operator)](graph, step)


def _intervals(graph: IntegerGraph, step: Step) -> list[Interval]:
    """Returns the intervals of a step's inputs."""
    return [graph.program.edges[name].interval for name in step.inputs]


def _result(graph: IntegerGraph, step: Step) -> Interval:
    return graph.program.edges[step.output].interval


def _add(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Add)  # noqa: S101 - by EMITTERS
    values = [*_intervals(graph, step), _result(graph, step), *operator.coefficients, operator.bias]
    kind = graph.type_of(Interval.hull(*values))
    total = graph.scalar(operator.bias, kind, step, "bias")
    terms = []
    for edge, coefficient in zip(step.inputs, operator.coefficients, strict=True):
        constant = graph.scalar(coefficient, kind, step, "coefficient")
        terms.append(
            graph.node("Mul", [graph.operand(edge, kind, step), constant], step, "aligned")
        )
    for term in terms[:-1]:
        total = graph.node("Add", [term, total], step, "sum")
    graph.finish(step, kind, "Add", [terms[-1], total])


def _multiply(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Multiply)  # noqa: S101 - by EMITTERS
    intervals, zero_points = _intervals(graph, step), operator.zero_points
    factors = [x.shifted(-z) for x, z in zip(intervals, zero_points, strict=True)]
    hull = Interval.hull(*intervals, *zero_points, *factors, _result(graph, step))
    kind = graph.type_of(hull)
    centred = [
        graph.centred(edge, zero_point, kind, step)
        for edge, zero_point in zip(step.inputs, zero_points, strict=True)
    ]
    graph.finish(step, kind, "Mul", centred)


def _sum(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Sum)  # noqa: S101 - by EMITTERS
    (x,), y = _intervals(graph, step), _result(graph, step)
    kind = graph.type_of(Interval.hull(x, operator.zero_point, y))
    value = graph.centred(step.inputs[0], operator.zero_point, kind, step)
    axes = graph.vector(list(operator.axes), step, "axes")
    if y.magnitude <= FLOAT64_EXACT:  # ONNX Runtime 1.31 adds up int64 in float64
        keep = int(operator.keep_axes)
        graph.finish(step, kind, "ReduceSum", [value, axes], keepdims=keep)
        return
    shape = graph.program.edges[step.inputs[0]].shape
    for axis in operator.axes:
        ends = [graph.vector([end], step, "end") for end in (0, shape[axis])]
        value = graph.call(window_sum(), [value, *ends], step, f"axis{axis}", axis=axis)
    if operator.keep_axes:
        graph.finish(step, kind, "Identity", [value])
    else:
        graph.finish(step, kind, "Squeeze", [value, axes])


def _requantize(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Requantize)  # noqa: S101 - by EMITTERS
    kind = graph.onnx.TensorProto.INT64
    (x,), parameters = step.inputs, graph.program.parameters(step)
    wide = graph.type_of(_rescaled(operator, _intervals(graph, step)[0], parameters)) == kind
    if operator.offset:
        x = graph.centred(x, -operator.offset, kind, step)
    factors = [
        graph.tensor(step.tensors[role], parameters[role], kind) for role in ("multiplier", "shift")
    ]
    graph.function(shift_right())
    graph.call(
        requantize(operator.rounding, wide),
        [x, *factors],
        step,
        output=step.output,
        zero_point=operator.zero_point,
        low=operator.low,
        high=operator.high,
        to=graph.edge_type(step.output),
    )


def _rescaled(operator: Requantize, x: Interval, parameters: Parameters) -> Interval:
    """Returns what the rescaled values, their bounds included, lie in before they are clamped."""
    ends = [operator.low, operator.high]
    pairs = np.stack([parameters["multiplier"].ravel(), parameters["shift"].ravel()], axis=1)
    for multiplier, shift in np.unique(pairs, axis=0).tolist():
        for end in (x.low, x.high):
            product = (end + operator.offset) * multiplier
            ends.append(round_shift(product, shift, operator.rounding) + operator.zero_point)
    return Interval.hull(*ends)


def _clamp(graph: IntegerGraph, step: Step) -> None:
    (x,), y = _intervals(graph, step), _result(graph, step)
    kind = graph.edge_type(step.inputs[0])
    if kind != graph.edge_type(step.output):
        kind = graph.type_of(x.union(y))
    value = graph.operand(step.inputs[0], kind, step)
    if kind == graph.onnx.TensorProto.INT64:
        graph.finish(step, kind, clamp(), [value], low=y.low, high=y.high)
        return
    ends = [graph.scalar(getattr(y, end), kind, step, end) for end in ("low", "high")]
    graph.finish(step, kind, "Clip", [value, *ends])


def _lookup(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Lookup)  # noqa: S101 - by EMITTERS
    (x,), table = _intervals(graph, step), graph.program.parameters(step)["table"]
    kind = graph.narrowest(table)
    if graph.edge_type(step.output) == graph.onnx.TensorProto.UINT8 and table.min() >= 0:
        kind = graph.edge_type(step.output) if table.max() <= 255 else kind
    index_type = graph.type_of(Interval.hull(x, operator.first))
    index = graph.centred(step.inputs[0], operator.first, index_type, step)
    graph.finish(
        step, kind, "Gather", [graph.tensor(step.tensors["table"], table, kind), index], axis=0
    )


def _interpolate(graph: IntegerGraph, step: Step) -> None:
    """Neither Div nor Mod of numbers that are not negative rounds but down."""
    operator, kind = step.operator, graph.onnx.TensorProto.INT64
    assert isinstance(operator, Interpolate)  # noqa: S101 - by EMITTERS
    table = graph.program.parameters(step)["table"]
    position = graph.centred(step.inputs[0], operator.first, kind, step)
    unit = graph.scalar(1 << operator.step_bits, kind, step, "unit")
    index = graph.node("Div", [position, unit], step, "index")
    rest = graph.node("Mod", [position, unit], step, "rest")
    starts = graph.tensor(f"{step.name}/starts", table[:-1] << operator.step_bits, kind)
    slopes = graph.tensor(f"{step.name}/slopes", np.diff(table), kind)
    start = graph.node("Gather", [starts, index], step, "start", axis=0)
    slope = graph.node("Gather", [slopes, index], step, "slope", axis=0)
    graph.finish(step, kind, "Add", [start, graph.node("Mul", [slope, rest], step, "rise")])


def _concatenate(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Concatenate)  # noqa: S101 - by EMITTERS
    kind = graph.edge_type(step.output)
    parts = [graph.operand(edge, kind, step) for edge in step.inputs]
    growing = [position for position, edge in enumerate(step.inputs) if graph.grows(edge)]
    if growing and len(growing) < len(parts):
        batch = graph.node("Shape", [parts[growing[0]]], step, "batch", start=0, end=1)
        rank = len(graph.program.edges[step.output].shape)
        ones = graph.vector([1] * (rank - 1), step, "ones")
        repeated = graph.node("Concat", [batch, ones], step, "repetitions", axis=0)
        for position in range(len(parts)):
            if position not in growing:
                inputs = [parts[position], repeated]
                parts[position] = graph.node("Expand", inputs, step, "repeated")
    graph.finish(step, kind, "Concat", parts, axis=operator.axis)


def _constant(graph: IntegerGraph, step: Step) -> None:
    kind = graph.edge_type(step.output)
    value = graph.program.parameters(step)["value"]
    graph.finish(step, kind, "Identity", [graph.tensor(step.tensors["value"], value, kind)])


def _reshape(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Reshape)  # noqa: S101 - by EMITTERS
    shape = graph.vector([-1, *operator.shape], step, "shape")
    graph.finish(step, graph.edge_type(step.inputs[0]), "Reshape", [step.inputs[0], shape])


def _permute(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Permute)  # noqa: S101 - by EMITTERS
    (x,) = step.inputs
    graph.finish(step, graph.edge_type(x), "Transpose", [x], perm=operator.order)


def _slice(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Slice)  # noqa: S101 - by EMITTERS
    bounds = {
        "start": operator.start,
        "stop": operator.stop,
        "axis": operator.axis,
        "step": operator.step,
    }
    constants = [graph.vector([value], step, label) for label, value in bounds.items()]
    (x,) = step.inputs
    graph.finish(step, graph.edge_type(x), "Slice", [x, *constants])


def _pad(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Pad)  # noqa: S101 - by EMITTERS
    kind = graph.edge_type(step.output)
    x = graph.operand(step.inputs[0], kind, step)
    amounts = [amount for side in zip(*operator.amounts, strict=True) for amount in side]
    value = graph.scalar(operator.value, kind, step, "value")
    graph.finish(step, kind, "Pad", [x, graph.vector(amounts, step, "amounts"), value])


def _gather(graph: IntegerGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Gather)  # noqa: S101 - by EMITTERS
    (x,), index = step.inputs, graph.program.parameters(step)["index"]
    constant = graph.tensor(step.tensors["index"], index, graph.onnx.TensorProto.INT64)
    graph.finish(step, graph.edge_type(x), "Gather", [x, constant], axis=operator.axis)


EMITTERS: dict[type[Operator], Callable[[IntegerGraph, Step], None]] = {
    Add: _add,
    AveragePool: average_pool,
    Clamp: _clamp,
    Concatenate: _concatenate,
    Constant: _constant,
    Convolution: convolution,
    Embedding: emit_embedding,
    Gather: _gather,
    Interpolate: _interpolate,
    Linear: linear,
    Lookup: _lookup,
    Matmul: matmul,
    MaxPool: max_pool,
    Multiply: _multiply,
    Normalize: emit_normalize,
    Pad: _pad,
    Permute: _permute,
    Requantize: _requantize,
    Reshape: _reshape,
    Slice: _slice,
    Softmax: emit_softmax,
    Sum: _sum,
}
"""By operator; one for every operator there is."""
