"""How each integer operator is written in real numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.forms.qonnx.context import ROUNDING_MODES, QonnxGraph
from photomask.chip.operators import (
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    Constant,
    Convolution,
    Gather,
    Linear,
    Lookup,
    Matmul,
    MaxPool,
    Multiply,
    Operator,
    Pad,
    Permute,
    Requantize,
    Reshape,
    Slice,
    Sum,
)
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step
from photomask.chip.target import Rounding
from photomask.errors import ExportError


def emit(graph: QonnxGraph, step: Step) -> None:
    """Adds the nodes of a step.

    Raises:
        ExportError: the operator has no form in QONNX.
    """
    emitter = EMITTERS.get(type(step.operator))
    if emitter is None:
        raise ExportError(
            f"step {step.name!r} ({step.source}): {step.operator.kind} steps have no form in "
            "QONNX; integer_model expresses every program"
        )
    emitter(graph, step)


def _convolution(graph: QonnxGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Convolution)  # noqa: S101 - by EMITTERS
    x = graph.edge(step.inputs[0])
    value, padding = graph.centred(step, 0, x.zero_point), operator.padding
    if operator.padding_value != x.zero_point and any(map(any, padding)):
        value = _padded(graph, step, ((0, 0), (0, 0), *padding), operator.padding_value)
        padding = ((0, 0),) * len(padding)
    weight, unit = _weight(graph, step)
    codes = effective_weight(graph.program.parameters(step))
    bias = _bias(graph, step, codes, unit)
    graph.finish(
        step, unit.reshape(-1, *(1,) * len(padding)), "Conv", [value, weight, bias],
        strides=operator.stride, dilations=operator.dilation, group=operator.groups,
        kernel_shape=codes.shape[2:], pads=[*(a for a, _ in padding), *(b for _, b in padding)],
    )  # fmt: skip


def _linear(graph: QonnxGraph, step: Step) -> None:
    weight, unit = _weight(graph, step, transposed=True)
    codes = effective_weight(graph.program.parameters(step))
    product = graph.node("MatMul", [step.inputs[0], weight], step, "product")
    graph.finish(step, unit, "Add", [product, _bias(graph, step, codes, unit)])


def _weight(graph: QonnxGraph, step: Step, transposed: bool = False) -> tuple[str, np.ndarray]:
    """Returns the quantized weights, and the real value of one unit of the sum, [O]."""
    parameters = graph.program.parameters(step)
    codes = effective_weight(parameters)
    format = graph.program.formats[step.tensors["weight"]]
    if len(parameters) > 2:
        # What multiplies the input, with zero point and group multiplier, has bits of its own.
        format = IntFormat.holding(Interval(int(codes.min()), int(codes.max())))
    unit = np.broadcast_to(np.array(graph.edge(step.output).scale), codes.shape[:1])
    scale = unit / graph.scale(step.inputs[0])
    if transposed:
        return graph.quantized_constant(step, "weight", codes.T, scale, format), unit
    aligned = scale.reshape(-1, *(1,) * (codes.ndim - 1))
    return graph.quantized_constant(step, "weight", codes, aligned, format), unit


def _bias(graph: QonnxGraph, step: Step, codes: np.ndarray, unit: np.ndarray) -> str:
    """Adds real biases: without the zero point's share, which real inputs do not have."""
    share = graph.edge(step.inputs[0]).zero_point * codes.reshape(len(codes), -1).sum(axis=1)
    return graph.real(step, "bias", (graph.program.parameters(step)["bias"] + share) * unit)


def _matmul(graph: QonnxGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Matmul | Multiply)  # noqa: S101 - by EMITTERS
    factors = [
        graph.centred(step, at, zero_point, f"centred{at}")
        for at, zero_point in enumerate(operator.zero_points)
    ]
    unit = graph.scale(step.inputs[0]) * graph.scale(step.inputs[1])
    graph.finish(step, unit, "MatMul" if isinstance(operator, Matmul) else "Mul", factors)


def _add(graph: QonnxGraph, step: Step) -> None:
    """Real terms are of one scale already: what is left of the coefficients is their sign."""
    operator = step.operator
    assert isinstance(operator, Add)  # noqa: S101 - by EMITTERS
    unit = graph.edge(step.output).scale[0]
    constant = operator.bias + sum(
        coefficient * graph.edge(name).zero_point
        for coefficient, name in zip(operator.coefficients, step.inputs, strict=True)
    )
    terms = []
    for at, (coefficient, name) in enumerate(zip(operator.coefficients, step.inputs, strict=True)):
        factor = coefficient * unit / graph.scale(name)
        terms.append((graph.scaled(step, name, np.array(abs(factor)), f"term{at}"), factor < 0))
    terms.sort(key=lambda term: term[1])
    if constant or len(terms) == 1:
        terms.append((graph.real(step, "constant", constant * unit), False))
    total, negative = terms[0]
    if negative:
        total = graph.node("Neg", [total], step, "negative")
    for at, (term, subtracted) in enumerate(terms[1:-1], start=1):
        total = graph.node("Sub" if subtracted else "Add", [total, term], step, f"sum{at}")
    last, subtracted = terms[-1]
    graph.finish(step, unit, "Sub" if subtracted else "Add", [total, last])


def _requantize(graph: QonnxGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Requantize)  # noqa: S101 - by EMITTERS
    x, y = graph.edge(step.inputs[0]), graph.edge(step.output)
    parameters = graph.program.parameters(step)
    ratio = np.ldexp(parameters["multiplier"].astype(np.float64), -parameters["shift"])
    value = graph.centred(step, 0, -operator.offset)
    value = graph.scaled(step, value, ratio[None] * y.scale[0] / graph.units[x.name])
    low, high = operator.low, operator.high
    if low > y.format.low + y.format.signed or high < y.format.high:
        value = _clipped(graph, step, value, low, high)
    mode = ROUNDING_MODES.get(operator.rounding)
    multiplier = parameters["multiplier"]
    if mode is None and np.any(multiplier & (multiplier - 1)):
        # The middle of two codes is met by shifts alone, but for chance.
        mode = ROUNDING_MODES[Rounding.HALF_EVEN]
    if mode is None and not y.format.signed and not operator.zero_point:
        mode = ROUNDING_MODES[Rounding.HALF_AWAY]
    if mode is None:
        half = graph.real(step, "half", y.scale[0] / 2)
        value = graph.node("Add", [value, half], step, "half_up")
        mode = "FLOOR"
    graph.quant(step, value, y.model_copy(update={"zero_point": operator.zero_point}), mode)


def _clipped(graph: QonnxGraph, step: Step, value: str, low: int, high: int) -> str:
    """Clamps to the real values of two codes; a ReLU where it is one."""
    y = graph.edge(step.output)
    if low == y.zero_point and high == y.format.high:
        return graph.node("Relu", [value], step, "relu")
    bounds = [
        graph.real(step, label, (code - y.zero_point) * y.scale[0])
        for label, code in (("low", low), ("high", high))
    ]
    return graph.node("Clip", [value, *bounds], step, "clipped")


def _lookup(graph: QonnxGraph, step: Step) -> None:
    """Codes, a table of real numbers, and the Quant node that says what they are."""
    operator = step.operator
    assert isinstance(operator, Lookup)  # noqa: S101 - by EMITTERS
    x, y = graph.edge(step.inputs[0]), graph.edge(step.output)
    divided = graph.node(
        "Div", [x.name, graph.real(step, "input_scale", graph.units[x.name])], step, "divided"
    )
    first = graph.real(step, "first", x.zero_point - operator.first)
    position = graph.node("Add", [divided, first], step, "position")
    rounded = graph.node("Round", [position], step, "rounded")
    index = graph.node("Cast", [rounded], step, "index", to=graph.onnx.TensorProto.INT64)
    table = (graph.program.parameters(step)["table"] - y.zero_point) * y.scale[0]
    found = graph.node("Gather", [graph.real(step, "table", table), index], step, "found", axis=0)
    graph.quant(step, found, y, "ROUND")


def _average_pool(graph: QonnxGraph, step: Step) -> None:
    """Averages over windows; one unit is worth `scale / elements of the kernel`."""
    operator = step.operator
    assert isinstance(operator, AveragePool)  # noqa: S101 - by EMITTERS
    x = graph.edge(step.inputs[0])
    stride, spatial = operator.stride, x.shape[2:]
    if operator.adaptive:
        if any(size % count for size, count in zip(spatial, operator.output_size, strict=True)):
            raise ExportError(
                f"step {step.name!r} ({step.source}): adaptive windows of different sizes have no "
                "form in QONNX; choose an output size that divides the input's"
            )
        stride = operator.kernel
    value = graph.centred(step, 0, operator.zero_point)
    amounts = [
        (before, (count - 1) * s - before + kernel - size)
        for before, count, s, kernel, size in zip(
            operator.padding, operator.output_size, stride, operator.kernel, spatial, strict=True
        )
    ]
    if any(map(any, amounts)):
        value = _padded(graph, step, ((0, 0), (0, 0), *amounts), operator.zero_point, value)
    unit = graph.units[x.name] / int(np.prod(operator.kernel))
    graph.finish(step, unit, "AveragePool", [value], kernel_shape=operator.kernel, strides=stride)


def _sum(graph: QonnxGraph, step: Step) -> None:
    """The mean; one unit is worth `scale / elements`."""
    operator = step.operator
    assert isinstance(operator, Sum)  # noqa: S101 - by EMITTERS
    value = graph.centred(step, 0, operator.zero_point)
    unit = graph.units[step.inputs[0]] / operator.terms
    graph.finish(
        step, unit, "ReduceMean", [value], axes=operator.axes, keepdims=int(operator.keep_axes)
    )


def _max_pool(graph: QonnxGraph, step: Step) -> None:
    """MaxPool behind a Pad with the smallest value, which never wins."""
    operator = step.operator
    assert isinstance(operator, MaxPool)  # noqa: S101 - by EMITTERS
    x = graph.edge(step.inputs[0])
    amounts = [
        (before, (count - 1) * stride - before + (kernel - 1) * dilation + 1 - size)
        for before, count, stride, kernel, dilation, size in zip(
            operator.padding, operator.output_size, operator.stride, operator.kernel,
            operator.dilation, x.shape[2:], strict=True,
        )
    ]  # fmt: skip
    value = x.name
    if any(map(any, amounts)):
        value = _padded(graph, step, ((0, 0), (0, 0), *amounts), x.low)
    graph.finish(
        step, graph.units[x.name], "MaxPool", [value], kernel_shape=operator.kernel,
        strides=operator.stride, dilations=operator.dilation,
    )  # fmt: skip


def _padded(
    graph: QonnxGraph,
    step: Step,
    amounts: Sequence[tuple[int, int]],
    code: int,
    value: str = "",
) -> str:
    """Returns the first input, padded by a code; negative amounts crop."""
    x = graph.edge(step.inputs[0])
    zero_point = x.zero_point
    if value and value != x.name:
        zero_point = code  # the value was centred on it
    sides = [*(before for before, _ in amounts), *(after for _, after in amounts)]
    filler = graph.real(step, "filler", (code - zero_point) * graph.units[x.name])
    inputs = [value or x.name, graph.whole(step, "amounts", sides), filler]
    return graph.node("Pad", inputs, step, "padded")


def _moved(graph: QonnxGraph, step: Step) -> None:
    """Operators that move values, or clamp them to those of two codes."""
    operator, (name, *_) = step.operator, step.inputs
    x, output = graph.edge(name), graph.edge(step.output)
    inputs: list[str] = [name]
    attributes: dict[str, Any] = {}
    match operator:
        case Reshape():
            kind = "Reshape"
            inputs.append(graph.whole(step, "shape", list(output.shape)))
        case Permute():
            kind, attributes = "Transpose", {"perm": operator.order}
        case Slice():
            kind = "Slice"
            ends = [operator.start], [operator.stop], [operator.axis], [operator.step]
            labels = ("start", "stop", "axis", "step")
            inputs += [graph.whole(step, n, e) for n, e in zip(labels, ends, strict=True)]
        case Gather():
            kind, attributes = "Gather", {"axis": operator.axis}
            index = graph.program.parameters(step)["index"].tolist()
            inputs.append(graph.whole(step, "index", index))
        case Pad():
            kind = "Pad"
            sides = [side for at in (0, 1) for side in (pair[at] for pair in operator.amounts)]
            filler = (operator.value - x.zero_point) * graph.units[name]
            inputs += [graph.whole(step, "amounts", sides), graph.real(step, "filler", filler)]
        case Clamp():
            kind = "Clip"
            inputs += [
                graph.real(step, label, (code - x.zero_point) * graph.units[name])
                for label, code in (("low", operator.low), ("high", operator.high))
            ]
        case _:
            raise TypeError(f"{type(operator).__name__} moves nothing")
    graph.finish(step, graph.units[name], kind, inputs, **attributes)


def _concatenate(graph: QonnxGraph, step: Step) -> None:
    operator = step.operator
    assert isinstance(operator, Concatenate)  # noqa: S101 - by EMITTERS
    unit = graph.units[step.inputs[0]]
    graph.finish(step, unit, "Concat", list(step.inputs), axis=operator.axis)


def _constant(graph: QonnxGraph, step: Step) -> None:
    edge = graph.edge(step.output)
    codes = graph.program.parameters(step)["value"]
    value = graph.real(step, "value", (codes - edge.zero_point) * edge.scale[0])
    graph.quant(step, value, edge, "ROUND")


EMITTERS: dict[type[Operator], Callable[[QonnxGraph, Step], None]] = {
    Add: _add,
    AveragePool: _average_pool,
    Clamp: _moved,
    Concatenate: _concatenate,
    Constant: _constant,
    Convolution: _convolution,
    Gather: _moved,
    Linear: _linear,
    Lookup: _lookup,
    Matmul: _matmul,
    MaxPool: _max_pool,
    Multiply: _matmul,
    Pad: _moved,
    Permute: _moved,
    Requantize: _requantize,
    Reshape: _moved,
    Slice: _moved,
    Sum: _sum,
}
"""By operator; one for every operator there is."""
