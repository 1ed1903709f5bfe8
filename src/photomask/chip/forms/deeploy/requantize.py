"""How each integer operator is written for Deeploy, and what has no such form.

Source: Deeploy 0.2.1, `Targets/Generic`: parsers, bindings and the kernels they call.
"""

import math

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.deeploy.context import INT32, DeeployGraph
from photomask.chip.operators import (
    Add,
    AveragePool,
    Convolution,
    Linear,
    MaxPool,
    Permute,
    Requantize,
    Reshape,
    Sum,
)
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import IntegerProgram, Step
from photomask.chip.target import Rounding

_INT8 = Interval(-128, 127)
_BEFORE_REQUANTIZE = (Add, AveragePool, Convolution, Linear, Sum)
"""What makes accumulators, which only RequantShift reads."""


def problems_of(program: IntegerProgram) -> list[str]:
    """Returns what has no form in Deeploy, with the steps and their sources."""
    problems = [
        f"edge {edge.name!r}: {edge.format} codes with zero point {edge.zero_point}; it has 8 "
        "bits and no zero points"
        for edge in program.edges.values()
        if edge.role != "accumulator" and (edge.format.bits > 8 or edge.zero_point)
    ]
    for step in program.steps:
        problem = _problem(program, step)
        if problem:
            problems.append(f"step {step.name!r} ({step.operator.kind}, {step.source}): {problem}")
    readers = {name: step.operator for step in program.steps for name in step.inputs}
    for step in program.steps:
        output = program.edges[step.output]
        if output.role == "accumulator" and not isinstance(readers.get(step.output), Requantize):
            problems.append(f"step {step.name!r}: no rescaling reads its sums")
    return problems


def _problem(program: IntegerProgram, step: Step) -> str | None:
    operator, x = step.operator, program.edges[step.inputs[0]] if step.inputs else None
    if x is None:
        return "constants are no activations there"
    match operator:
        case Convolution():
            return _convolution_problem(program, step)
        case Linear():
            weight = effective_weight(program.parameters(step))
            if x.shape != (1, weight.shape[1]):
                return f"an input of shape {x.shape}; it multiplies rows of one sample"
            return _weight_problem(weight)
        case Add():
            if len(step.inputs) != 2 or len({program.edges[n].shape for n in step.inputs}) != 1:
                return "it adds two inputs of one shape"
            if not Interval.hull(*operator.coefficients).within(Interval(-32768, 32767)):
                return f"coefficients {operator.coefficients} beyond 16 bits"
            return None
        case AveragePool() | Sum():
            return _average_problem(program, step)
        case MaxPool():
            if len(operator.kernel) != 2 or any(d != 1 for d in operator.dilation):
                return "windows are two-dimensional and not dilated"
            padded = any(any(pair) for pair in _window_margins(program, step))
            return "it pads by 0, which wins over negative codes" if padded and x.low < 0 else None
        case Requantize():
            return _requantize_problem(program, step)
        case Permute() | Reshape():
            return None
    return "no such operator"


def _convolution_problem(program: IntegerProgram, step: Step) -> str | None:
    operator = step.operator
    assert isinstance(operator, Convolution)  # noqa: S101 - asked for convolutions only
    weight = effective_weight(program.parameters(step))
    channels = program.edges[step.inputs[0]].shape[1]
    if weight.ndim != 4 or any(d != 1 for d in operator.dilation):
        return "kernels are two-dimensional and not dilated"
    if operator.groups not in (1, channels) or (operator.groups > 1 and len(weight) != channels):
        return f"{operator.groups} groups; it has 1, or one for each channel"
    if operator.padding_value:
        return "it pads by 0"
    return _weight_problem(weight)


def _weight_problem(weight: np.ndarray) -> str | None:
    if not Interval(int(weight.min()), int(weight.max())).within(_INT8):
        return f"weights from {weight.min()} to {weight.max()}; it has int8"
    return None


def _average_problem(program: IntegerProgram, step: Step) -> str | None:
    operator, x = step.operator, program.edges[step.inputs[0]]
    if len(x.shape) != 4:
        return "averages are over two spatial axes"
    if isinstance(operator, Sum):
        return None if operator.axes == (2, 3) else f"sums over axes {operator.axes}, not (2, 3)"
    assert isinstance(operator, AveragePool)  # noqa: S101 - asked for averages only
    uneven = any(s % n for s, n in zip(x.shape[2:], operator.output_size, strict=True))
    return "adaptive windows of different sizes" if operator.adaptive and uneven else None


def _requantize_problem(program: IntegerProgram, step: Step) -> str | None:
    operator = step.operator
    assert isinstance(operator, Requantize)  # noqa: S101 - asked for requantizations only
    if operator.rounding is not Rounding.HALF_UP or operator.zero_point or operator.offset:
        return "it rounds half up, without zero points and offsets"
    if _levels(operator) is None:
        return (
            f"codes are clamped to {operator.low} to {operator.high}; it clamps to 0 … 2n - 1 or "
            "-n … n - 1"
        )
    x = program.edges[step.inputs[0]]
    multiplier = program.parameters(step)["multiplier"]
    if len(x.shape) < 2 or multiplier.shape not in {(1,) * multiplier.ndim, _per_channel(x.shape)}:
        return f"multipliers of shape {multiplier.shape}; it has one for each channel of axis 1"
    multiplier, _, half = _multipliers(program, step)
    products = x.interval.scaled(int(multiplier.max())).union(Interval(0, 0))
    largest = Interval(products.low, products.high + half)
    if not largest.within(INT32):
        return (
            f"products from {products.low} to {products.high} exceed its 32 bits; take a target "
            "with fewer multiplier_bits, such as 8"
        )
    return None


def _per_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[1], *(1,) * (len(shape) - 2))


def _levels(operator: Requantize) -> int | None:
    """Returns the number of codes, if they are those that RequantShift can clamp to."""
    count = operator.high - operator.low + 1
    if count % 2 or count > 256 or operator.low not in (0, -count // 2):
        return None
    return count


def _multipliers(program: IntegerProgram, step: Step) -> tuple[np.ndarray, int, int]:
    """Returns multipliers [C] for one shift for all, that shift, and half of its divisor.

    `(x * m + 2**(s-1)) >> s` is `(x * m * 2**k + 2**(s+k-1)) >> (s+k)`, exactly. The shift is at
    least 1, so that there is a half.
    """
    parameters = program.parameters(step)
    shift = max(1, int(parameters["shift"].max()))
    multiplier = parameters["multiplier"].astype(object) << (shift - parameters["shift"])
    channels = program.edges[step.inputs[0]].shape[1]
    return np.broadcast_to(multiplier.reshape(-1), (channels,)), shift, 1 << (shift - 1)


def emit(graph: DeeployGraph, step: Step) -> None:
    """Adds the nodes of a step that has no problem."""
    operator, inputs = step.operator, [graph.name(name) for name in step.inputs]
    output = graph.name(step.output)
    match operator:
        case Convolution():
            before, after = zip(*operator.padding, strict=True)
            bias = graph.program.parameters(step)["bias"]
            weight = effective_weight(graph.program.parameters(step))
            _convolve(graph, step, output, weight, operator.stride, operator.groups,
                      (*before, *after))  # fmt: skip
            graph.folded[step.output] = bias
        case Linear():
            parameters = graph.program.parameters(step)
            weight = graph.tensor(f"{step.name}_weight", effective_weight(parameters), np.int8)
            bias = graph.tensor(f"{step.name}_bias", parameters["bias"][None], np.int32)
            graph.node("Gemm", [*inputs, weight, bias], output, step, alpha=1.0, beta=1.0,
                       transA=0, transB=1)  # fmt: skip
        case Add():
            _add(graph, step)
        case AveragePool() | Sum():
            _average(graph, step)
        case MaxPool():
            before, after = zip(*_window_margins(graph.program, step), strict=True)
            graph.node("MaxPool", inputs, output, step, ceil_mode=0, strides=operator.stride,
                       kernel_shape=operator.kernel, pads=(*before, *after))  # fmt: skip
        case Requantize():
            _requantize(graph, step)
        case Reshape():
            shape = np.array(graph.program.edges[step.output].shape)
            inputs.append(graph.tensor(f"{step.name}_shape", shape, np.int64))
            graph.node("Reshape", inputs, output, step)
        case Permute():
            graph.node("Transpose", inputs, output, step, perm=operator.order)


def _convolve(
    graph: DeeployGraph,
    step: Step,
    output: str,
    weight: np.ndarray,
    stride: tuple[int, ...],
    groups: int,
    pads: tuple[int, ...],
) -> None:
    name = graph.tensor(f"{step.name}_weight", weight, np.int8)
    graph.node(
        "Conv", [graph.name(step.inputs[0]), name], output, step, dilations=(1, 1), group=groups,
        kernel_shape=weight.shape[2:], pads=pads, strides=stride,
    )  # fmt: skip


def _add(graph: DeeployGraph, step: Step) -> None:
    """Each input by its coefficient, then the sum; the constant goes into the RequantShift."""
    operator, terms = step.operator, []
    assert isinstance(operator, Add)  # noqa: S101 - asked for additions only
    for name, coefficient in zip(step.inputs, operator.coefficients, strict=True):
        if coefficient == 1:
            terms.append(graph.name(name))
            continue
        shape = graph.program.edges[name].shape
        # One constant for each element: the generic multiplication does not broadcast.
        factor = graph.tensor(f"{step.name}_factor", np.full(shape, coefficient), np.int16)
        terms.append(graph.value(f"{step.name}_term", shape))
        graph.node("Mul", [graph.name(name), factor], terms[-1], step)
    graph.node("Add", terms, graph.name(step.output), step)
    channels = graph.program.edges[step.output].shape[1]
    graph.folded[step.output] = np.full(channels, operator.bias)


def _average(graph: DeeployGraph, step: Step) -> None:
    """A depthwise convolution with ones; zero points are 0."""
    operator, x = step.operator, graph.program.edges[step.inputs[0]]
    output = graph.name(step.output)
    if isinstance(operator, Sum):
        kernel, stride, margins = x.shape[2:], (1, 1), ((0, 0), (0, 0))
    else:
        assert isinstance(operator, AveragePool)  # noqa: S101 - asked for averages only
        kernel = operator.kernel
        stride = operator.kernel if operator.adaptive else operator.stride
        margins = _window_margins(graph.program, step)
    ones = np.ones((x.shape[1], 1, *kernel), dtype=np.int64)
    before, after = zip(*margins, strict=True)
    if isinstance(operator, Sum) and not operator.keep_axes:
        summed = graph.value(f"{step.name}_sum", (*x.shape[:2], 1, 1))
        _convolve(graph, step, summed, ones, stride, x.shape[1], (*before, *after))
        shape = np.array(graph.program.edges[step.output].shape)
        tensor = graph.tensor(f"{step.name}_shape", shape, np.int64)
        graph.node("Reshape", [summed, tensor], output, step)
    else:
        _convolve(graph, step, output, ones, stride, x.shape[1], (*before, *after))


def _window_margins(program: IntegerProgram, step: Step) -> list[tuple[int, int]]:
    """Returns the padding before and after each spatial axis; none where windows end earlier."""
    operator = step.operator
    assert isinstance(operator, AveragePool | MaxPool)  # noqa: S101 - asked for windows only
    if isinstance(operator, AveragePool) and operator.adaptive:
        return [(0, 0)] * len(operator.kernel)
    spatial = program.edges[step.inputs[0]].shape[2:]
    return [
        (before, max(0, (count - 1) * stride - before + kernel - size))
        for before, count, stride, kernel, size in zip(
            operator.padding, operator.output_size, operator.stride, operator.kernel, spatial,
            strict=True,
        )
    ]  # fmt: skip


def _requantize(graph: DeeployGraph, step: Step) -> None:
    operator, name = step.operator, step.inputs[0]
    assert isinstance(operator, Requantize)  # noqa: S101 - asked for requantizations only
    multiplier, shift, _ = _multipliers(graph.program, step)
    rank = len(graph.program.edges[name].shape)
    shape = (len(multiplier), *(1,) * (rank - 2))
    bias = graph.folded.get(name, np.zeros(len(multiplier), dtype=np.int64))
    constants = [
        graph.tensor(f"{step.name}_mul", multiplier.reshape(shape), np.int32),
        graph.tensor(f"{step.name}_add", (bias * multiplier).reshape(shape), np.int32),
    ]
    levels = _levels(operator)
    assert levels is not None  # noqa: S101 - it has no problem
    graph.node(
        "RequantShift", [graph.name(name), *constants], graph.name(step.output), step,
        div=graph.number(1 << shift), n_levels=graph.number(levels),
        signed=graph.number(int(operator.low < 0)),
    )  # fmt: skip


def requant_shift(
    x: np.ndarray, mul: np.ndarray, add: np.ndarray, div: int, n_levels: int, signed: int
) -> np.ndarray:
    """Says what RequantShift computes, on int64.

    `clip((x * mul + add + div / 2) >> log2(div), low, low + n_levels - 1)` with `low` 0, or
    `-n_levels / 2` where `signed`. Deeploy computes in 32 bits, in which every step of an export
    fits.

    Args:
        x: int64, [N, C, ...].
        mul: int64, broadcasts against a sample of `x`.
        add: int64, the shape of `mul`.
        div: a power of two, at least 2.
        n_levels: number of codes.
        signed: 0 or 1.
    """
    shift = math.log2(div)
    if shift != int(shift) or shift < 1:
        raise ValueError(f"div {div} is no power of two from 2 on")
    low = -(n_levels // 2) if signed else 0
    rounded = (x * mul + add + div // 2) >> int(shift)
    return np.clip(rounded, low, low + n_levels - 1)
