"""What each integer operator becomes between quantized and dequantized activations."""

from collections.abc import Callable
from typing import Any

import numpy as np

from photomask.chip.forms.qdq.context import SAME, QdqGraph
from photomask.chip.forms.qdq.pooling import average_pool, max_pool, sum_
from photomask.chip.forms.qdq.products import convolution, linear
from photomask.chip.forms.qdq.transformers import embedding, normalize, softmax
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
    Permute,
    Requantize,
    Reshape,
    Slice,
    Softmax,
    Sum,
)
from photomask.chip.program import Edge, Step


def emit(graph: QdqGraph, step: Step) -> None:
    """Adds the nodes that compute a step, the float operator under its name.

    Raises:
        TargetError: the step has no QDQ form.
    """
    EMITTERS[type(step.operator)](graph, step)


def _edges(graph: QdqGraph, step: Step) -> list[Edge]:
    return [graph.program.edges[name] for name in step.inputs]


def _requantize(graph: QdqGraph, step: Step) -> None:
    """A clamp where the codes do not saturate by themselves, then quantize and dequantize."""
    operator, (x,), y = step.operator, _edges(graph, step), graph.program.edges[step.output]
    assert isinstance(operator, Requantize)  # noqa: S101 - by EMITTERS
    scale, *others = y.scale
    if others or (x.role != "accumulator" and len(x.scale) > 1):
        raise graph.refusal(step, "its channels have scales of their own")
    if operator.offset != -x.zero_point or operator.zero_point != y.zero_point:
        raise graph.refusal(step, "its offsets are not the zero points of its edges")
    parameters = graph.program.parameters(step)
    ratio = np.ldexp(parameters["multiplier"].astype(np.float64), -parameters["shift"])
    trailing = 0 if x.channel_axis is None else len(x.shape) - 1 - x.channel_axis
    unit = np.array(x.scale).reshape(-1, *(1,) * trailing)
    factor = ratio * scale / unit * graph.divisors.get(x.name, 1.0)
    # What is left of 1 is the rounding of the multiplier, which a float scale does not have.
    rounding = 2 * step.relative_error + SAME
    value = graph.real(x.name)
    if not np.all(np.abs(factor - 1) <= rounding):
        value = graph.scaled(value, factor, step)
    (lowest, highest), zero_point = graph.ends(y, step), y.zero_point
    if operator.low == zero_point > lowest and operator.high == highest:
        value = graph.node("Relu", [value], step, "relu")
    elif operator.low > lowest or operator.high < highest:
        ends = np.array([operator.low - zero_point, operator.high - zero_point]) * scale
        constants = [
            graph.floats(end, step, label) for end, label in zip(ends, ("low", "high"), strict=True)
        ]
        value = graph.node("Clip", [value, *constants], step, "clamp")
    graph.quantize(value, y, step, "")


def _add(graph: QdqGraph, step: Step) -> None:
    """Coefficients that only align scales vanish; their signs stay."""
    operator, inputs, y = step.operator, _edges(graph, step), graph.program.edges[step.output]
    assert isinstance(operator, Add)  # noqa: S101 - by EMITTERS
    unit, offset = y.scale[0], operator.bias - y.zero_point
    terms = []
    for x, coefficient in zip(inputs, operator.coefficients, strict=True):
        offset += coefficient * x.zero_point
        wanted = x.scale[0] / unit
        aligned = abs(abs(coefficient) - wanted) <= 0.5 + SAME * wanted
        factor = 1.0 if aligned else abs(coefficient) / wanted
        terms.append((graph.scaled(graph.real(x.name), factor, step), coefficient < 0))
    if offset:
        terms.append((graph.floats(offset * unit, step, "offset"), False))
    total, negative = terms[0]
    if len(terms) == 1 or negative:
        total = graph.node("Neg" if negative else "Identity", [total], step, "first")
    for value, negative in terms[1:-1]:
        total = graph.node("Sub" if negative else "Add", [total, value], step, "sum")
    if len(terms) == 1:
        graph.finish(step, "Identity", [total])
    else:
        value, negative = terms[-1]
        graph.finish(step, "Sub" if negative else "Add", [total, value])


def _product(graph: QdqGraph, step: Step) -> None:
    operator, (a, b), y = step.operator, _edges(graph, step), graph.program.edges[step.output]
    assert isinstance(operator, Matmul | Multiply)  # noqa: S101 - by EMITTERS
    if operator.zero_points != (a.zero_point, b.zero_point) or y.zero_point:
        raise graph.refusal(step, "its zero points are not those of its edges")
    name = "MatMul" if isinstance(operator, Matmul) else "Mul"
    inputs, factor = (
        [graph.real(a.name), graph.real(b.name)],
        y.scale[0] / (a.scale[0] * b.scale[0]),
    )
    if abs(factor - 1) > SAME:
        product = graph.node(name, inputs, step, "product")
        name, inputs = "Mul", [product, graph.floats(factor, step, "factor")]
    graph.finish(step, name, inputs)


def _lookup(graph: QdqGraph, step: Step) -> None:
    """A table over codes, between QuantizeLinear and DequantizeLinear."""
    operator, kinds = step.operator, graph.onnx.TensorProto
    assert isinstance(operator, Lookup)  # noqa: S101 - by EMITTERS
    y, table = graph.program.edges[step.output], graph.program.parameters(step)["table"]
    codes = graph.codes(step.inputs[0], step)
    index = graph.node("Cast", [codes], step, "index", to=kinds.INT32)
    first = graph.tensor(f"{step.name}/first", np.array(operator.first), kinds.INT32)
    position = graph.node("Sub", [index, first], step, "position")
    kind = graph.code_type(y, step)
    # Gather reads no 4-bit tables.
    stored = {kinds.INT4: kinds.INT8, kinds.UINT4: kinds.UINT8}.get(kind, kind)
    constant = graph.tensor(step.tensors["table"], table, stored)
    value = graph.value_name(step, "codes")
    graph.node("Gather", [constant, position], step, output=value, axis=0)
    graph.dequantize(value, y, stored, step)


def _interpolate(graph: QdqGraph, step: Step) -> None:
    """A table of real numbers: every point of the lines, and the end of the last one."""
    operator, kinds = step.operator, graph.onnx.TensorProto
    assert isinstance(operator, Interpolate)  # noqa: S101 - by EMITTERS
    x, y = step.inputs[0], graph.program.edges[step.output]
    parameters = graph.program.parameters(step)
    table = parameters["table"]
    codes = operator.first + np.arange(len(table) - 1 << operator.step_bits)
    units = operator.run_numpy([codes], parameters)
    points = np.append(units, table[-1] << operator.step_bits) * y.scale[0]
    index = graph.node("Cast", [graph.codes(x, step)], step, "index", to=kinds.INT32)
    first = graph.tensor(f"{step.name}/first", np.array(operator.first), kinds.INT32)
    position = graph.node("Sub", [index, first], step, "position")
    graph.finish(step, "Gather", [graph.floats(points, step, "points"), position], axis=0)


def _constant(graph: QdqGraph, step: Step) -> None:
    y, value = graph.program.edges[step.output], graph.program.parameters(step)["value"]
    kind = graph.code_type(y, step)
    graph.dequantize(graph.tensor(step.tensors["value"], value, kind), y, kind, step)


def _moved(graph: QdqGraph, step: Step, operator: str, constants: list[str], **more: Any) -> None:
    """Operators that keep codes and, so, scales."""
    y = graph.program.edges[step.output]
    for x in _edges(graph, step):
        if (x.scale, x.zero_point) != (y.scale, y.zero_point):
            raise graph.refusal(step, f"it moves codes of {x.name!r} to another scale")
    graph.finish(step, operator, [*map(graph.real, step.inputs), *constants], **more)


def _clamp(graph: QdqGraph, step: Step) -> None:
    y = graph.program.edges[step.output]
    ends = [(end - y.zero_point) * y.scale[0] for end in (y.low, y.high)]
    names = zip(ends, ("low", "high"), strict=True)
    _moved(graph, step, "Clip", [graph.floats(end, step, label) for end, label in names])


def _concatenate(graph: QdqGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Concatenate)  # noqa: S101 - by EMITTERS
    if len({graph.grows(name) for name in step.inputs}) > 1:
        raise graph.refusal(step, "it repeats a constant for every sample")
    _moved(graph, step, "Concat", [], axis=operator.axis)


def _reshape(graph: QdqGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Reshape)  # noqa: S101 - by EMITTERS
    _moved(graph, step, "Reshape", [graph.integers([-1, *operator.shape], step, "shape")])


def _permute(graph: QdqGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Permute)  # noqa: S101 - by EMITTERS
    _moved(graph, step, "Transpose", [], perm=operator.order)


def _slice(graph: QdqGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Slice)  # noqa: S101 - by EMITTERS
    bounds = {
        "start": operator.start,
        "stop": operator.stop,
        "axis": operator.axis,
        "step": operator.step,
    }
    constants = [graph.integers([value], step, label) for label, value in bounds.items()]
    _moved(graph, step, "Slice", constants)


def _pad(graph: QdqGraph, step: Step) -> None:
    operator, y = step.operator, graph.program.edges[step.output]
    assert isinstance(operator, Pad)  # noqa: S101 - by EMITTERS
    amounts = [amount for side in zip(*operator.amounts, strict=True) for amount in side]
    value = graph.floats((operator.value - y.zero_point) * y.scale[0], step, "value")
    _moved(graph, step, "Pad", [graph.integers(amounts, step, "amounts"), value])


def _gather(graph: QdqGraph, step: Step) -> None:
    operator, index = step.operator, graph.program.parameters(step)["index"]
    assert isinstance(operator, Gather)  # noqa: S101 - by EMITTERS
    constant = graph.tensor(step.tensors["index"], index, graph.onnx.TensorProto.INT64)
    _moved(graph, step, "Gather", [constant], axis=operator.axis)


EMITTERS: dict[type[Operator], Callable[[QdqGraph, Step], None]] = {
    Add: _add,
    AveragePool: average_pool,
    Clamp: _clamp,
    Concatenate: _concatenate,
    Constant: _constant,
    Convolution: convolution,
    Embedding: embedding,
    Gather: _gather,
    Interpolate: _interpolate,
    Linear: linear,
    Lookup: _lookup,
    Matmul: _product,
    MaxPool: max_pool,
    Multiply: _product,
    Normalize: normalize,
    Pad: _pad,
    Permute: _permute,
    Requantize: _requantize,
    Reshape: _reshape,
    Slice: _slice,
    Softmax: softmax,
    Sum: sum_,
}
"""By operator; one for every operator there is."""
