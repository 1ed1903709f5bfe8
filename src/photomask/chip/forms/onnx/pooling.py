"""Writes maxima and sums over windows, in integers."""

import itertools
from collections.abc import Sequence

from photomask.chip.arithmetic import FLOAT64_EXACT
from photomask.chip.formats import Interval
from photomask.chip.forms.onnx.context import ONNX, IntegerGraph
from photomask.chip.forms.onnx.functions import larger, window_sum
from photomask.chip.operators import AveragePool, MaxPool, Sum
from photomask.chip.program import Step


@ONNX.of(MaxPool)
def max_pool(operator: MaxPool, graph: IntegerGraph, step: Step) -> None:
    """Adds a MaxPool node for codes of 8 bits, or the maximum over one slice per kernel position.

    The slices are also used if windows reach further beyond the input than MaxPool can pad. Outside
    the input lies the smallest code, which is never the maximum.
    """
    edge = graph.program.edges[step.inputs[0]]
    after = [
        (count - 1) * stride - before + (kernel - 1) * dilation + 1 - size
        for size, count, stride, before, kernel, dilation in zip(
            edge.shape[2:],
            operator.output_size,
            operator.stride,
            operator.padding,
            operator.kernel,
            operator.dilation,
            strict=True,
        )
    ]
    inside = all(0 <= a < k for a, k in zip(after, operator.kernel, strict=True))
    if edge.format.bits <= 8 and inside:
        graph.finish(
            step,
            graph.edge_type(edge.name),
            "MaxPool",
            [edge.name],
            kernel_shape=operator.kernel,
            strides=operator.stride,
            dilations=operator.dilation,
            pads=[*operator.padding, *after],
        )
        return
    kind = graph.type_of(edge.interval)
    x = graph.operand(edge.name, kind, step)
    if any(operator.padding) or any(after):
        amounts = graph.vector([0, 0, *operator.padding, 0, 0, *after], step, "amounts")
        smallest = graph.scalar(edge.low, kind, step, "smallest")
        x = graph.node("Pad", [x, amounts, smallest], step, "padded")
    positions = itertools.product(*map(range, operator.kernel))
    first, *taps = [_tap(operator, graph, step, x, position) for position in positions]
    if kind == graph.onnx.TensorProto.INT32:
        graph.finish(step, kind, "Max", [first, *taps])
        return
    for tap in taps:
        first = graph.call(larger(), [first, tap], step, "largest")
    graph.finish(step, kind, "Identity", [first])


def _tap(
    operator: MaxPool, graph: IntegerGraph, step: Step, x: str, position: Sequence[int]
) -> str:
    """Returns one element of every window."""
    starts = [at * dilation for at, dilation in zip(position, operator.dilation, strict=True)]
    stops = [
        start + (count - 1) * stride + 1
        for start, count, stride in zip(starts, operator.output_size, operator.stride, strict=True)
    ]
    label = "tap_" + "_".join(map(str, position))
    constants = [
        graph.vector(starts, step, f"{label}_start"),
        graph.vector(stops, step, f"{label}_stop"),
        graph.vector([2 + axis for axis in range(len(starts))], step, "axes"),
        graph.vector(list(operator.stride), step, "stride"),
    ]
    return graph.node("Slice", [x, *constants], step, label)


@ONNX.of(AveragePool)
def average_pool(operator: AveragePool, graph: IntegerGraph, step: Step) -> None:
    """Sums over windows, one axis after the other."""
    edge = graph.program.edges[step.inputs[0]]
    output = graph.program.edges[step.output]
    kind = graph.type_of(Interval.hull(edge.interval, operator.zero_point, output.interval))
    value = graph.centred(step.inputs[0], operator.zero_point, kind, step)
    axes = list(enumerate(operator.windows(edge.shape[2:]), start=2))
    for axis, windows in axes:
        ends = [
            graph.vector(list(side), step, f"axis{axis}_{label}")
            for label, side in zip(("first", "last"), zip(*windows, strict=True), strict=True)
        ]
        inputs = [value, *ends]
        if axis < axes[-1][0]:
            value = graph.call(window_sum(), inputs, step, f"axis{axis}", axis=axis)
        else:
            graph.finish(step, kind, window_sum(), inputs, axis=axis)


@ONNX.of(Sum)
def sum_terms(operator: Sum, graph: IntegerGraph, step: Step) -> None:
    """Adds a ReduceSum node if it is exact, or else differences of running sums."""
    (x,), y = graph.intervals(step), graph.interval(step)
    kind = graph.type_of(Interval.hull(x, operator.zero_point, y))
    value = graph.centred(step.inputs[0], operator.zero_point, kind, step)
    axes = graph.vector(list(operator.axes), step, "axes")
    if y.magnitude <= FLOAT64_EXACT:  # ONNX Runtime 1.31 computes sums of int64 in float64
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
