"""Writes maxima, averages and sums of real values."""

import math
from collections.abc import Sequence

import numpy as np

from photomask.chip.forms.onnx_builder import average_windows
from photomask.chip.forms.qdq.context import QDQ, SAME, QdqGraph
from photomask.chip.operators import AveragePool, MaxPool, Requantize, Sum
from photomask.chip.program import Step
from photomask.errors import FormError


@QDQ.of(MaxPool)
def max_pool(operator: MaxPool, graph: QdqGraph, step: Step) -> None:
    """Adds a MaxPool node, whose padding is never the maximum."""
    spans = tuple((k - 1) * d + 1 for k, d in zip(operator.kernel, operator.dilation, strict=True))
    graph.move(
        step,
        "MaxPool",
        [],
        kernel_shape=operator.kernel,
        strides=operator.stride,
        dilations=operator.dilation,
        pads=_pads(graph, step, operator, spans),
    )


@QDQ.of(AveragePool)
def average_pool(operator: AveragePool, graph: QdqGraph, step: Step) -> None:
    """Adds an AveragePool node.

    The node counts its padding, unless the rescalings behind it divide by the number of elements
    inside the input. If they divide by yet another number, they also correct the average.
    """
    x = graph.program.edges[step.inputs[0]]
    kernel, stride = average_windows(operator, x.shape[2:])
    pads = [0] * (2 * len(kernel))
    if not operator.adaptive:
        pads = _pads(graph, step, operator, kernel)
    _check_sum(graph, step, operator.zero_point)
    if not _rescalings(graph, step):
        raise FormError("its sum may only be read by rescalings")
    counted, counts = True, np.array(math.prod(kernel))
    if any(pads):
        lengths = [
            np.array([high - low for low, high in axis]) for axis in operator.windows(x.shape[2:])
        ]
        counts = lengths[0] if len(lengths) == 1 else np.multiply.outer(*lengths)
        counted = not _is_divided(graph, step, counts)
    graph.divisors[step.output] = math.prod(kernel) if counted else counts
    graph.finish(
        step,
        "AveragePool",
        [graph.real(x.name)],
        kernel_shape=kernel,
        strides=stride,
        pads=pads,
        count_include_pad=int(counted),
    )


@QDQ.of(Sum)
def sum_terms(operator: Sum, graph: QdqGraph, step: Step) -> None:
    """Adds a ReduceMean node if the next rescaling divides by the count, else a ReduceSum node."""
    _check_sum(graph, step, operator.zero_point)
    name = "ReduceSum"
    if _is_divided(graph, step, operator.terms):
        name, graph.divisors[step.output] = "ReduceMean", operator.terms
    axes = graph.integers(list(operator.axes), step, "axes")
    inputs = [graph.real(step.inputs[0]), axes]
    graph.finish(step, name, inputs, keepdims=int(operator.keep_axes))


def _check_sum(graph: QdqGraph, step: Step, zero_point: int) -> None:
    """Raises an error for a sum whose scale or zero point differs from its input's."""
    x, y = graph.program.edges[step.inputs[0]], graph.program.edges[step.output]
    if zero_point != x.zero_point or y.zero_point or x.scale != y.scale:
        raise FormError(
            "its zero point must be that of its input, and its output must have the scale of its "
            "input"
        )


def _rescalings(graph: QdqGraph, step: Step) -> Sequence[Step]:
    """Returns the requantizations that read a sum, or nothing if anything else also reads it."""
    readers = graph.program.links.readers[step.output]
    others = [reader for reader in readers if not isinstance(reader.operator, Requantize)]
    return () if others or step.output in graph.program.outputs else readers


def _is_divided(graph: QdqGraph, step: Step, terms: int | np.ndarray) -> bool:
    """Tells whether the steps behind a sum divide by the number of its terms."""
    unit, readers = graph.program.edges[step.output].scale[0], _rescalings(graph, step)
    for reader in readers:
        parameters = graph.program.parameters(reader)
        ratio = np.ldexp(parameters["multiplier"].astype(np.float64), -parameters["shift"])
        factor = ratio * graph.program.edges[reader.output].scale[0] / unit
        if np.any(np.abs(factor * terms - 1) > 2 * reader.relative_error + SAME):
            return False
    return bool(readers)


def _pads(
    graph: QdqGraph, step: Step, operator: AveragePool | MaxPool, spans: tuple[int, ...]
) -> list[int]:
    """Returns the padding as ONNX lists it: before each axis, then after each axis.

    Raises:
        FormError: the padding is larger than ONNX allows, which is less than the kernel.
    """
    size = graph.program.edges[step.inputs[0]].shape[2:]
    after = [
        (count - 1) * stride - before + span - extent
        for extent, count, stride, before, span in zip(
            size, operator.output_size, operator.stride, operator.padding, spans, strict=True
        )
    ]
    # A negative amount means that no window reaches the last elements, which needs no padding.
    after = [
        0 if -stride < amount < 0 else amount
        for amount, stride in zip(after, operator.stride, strict=True)
    ]
    if not all(0 <= amount < k for amount, k in zip(after, operator.kernel, strict=True)):
        raise FormError(
            f"its windows reach {after} elements beyond the input, but ONNX pads by less than the "
            "kernel"
        )
    return [*operator.padding, *after]
