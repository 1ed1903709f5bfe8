"""Maximum and sum over windows in integers."""

import itertools
from collections.abc import Sequence

from photomask.chip.formats import Interval
from photomask.chip.forms.onnx.context import IntegerGraph
from photomask.chip.forms.onnx.functions import larger, window_sum
from photomask.chip.operators import AveragePool, MaxPool
from photomask.chip.program import Step


def max_pool(graph: IntegerGraph, step: Step) -> None:
    """MaxPool on 8 bits; else the largest of one slice for each kernel position.

    The latter also where windows reach further beyond the input than MaxPool pads; the smallest
    code lies there, which never wins.
    """
    operator = step.operator
    assert isinstance(operator, MaxPool)  # noqa: S101 - by EMITTERS
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
    first, *taps = [_tap(graph, step, x, position) for position in positions]
    if kind == graph.onnx.TensorProto.INT32:
        graph.finish(step, kind, "Max", [first, *taps])
        return
    for tap in taps:
        first = graph.call(larger(), [first, tap], step, "largest")
    graph.finish(step, kind, "Identity", [first])


def _tap(graph: IntegerGraph, step: Step, x: str, position: Sequence[int]) -> str:
    """Returns one element of every window."""
    operator = step.operator
    assert isinstance(operator, MaxPool)  # noqa: S101 - by EMITTERS
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


def average_pool(graph: IntegerGraph, step: Step) -> None:
    """Sums over windows, one axis after the other."""
    operator = step.operator
    assert isinstance(operator, AveragePool)  # noqa: S101 - by EMITTERS
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
