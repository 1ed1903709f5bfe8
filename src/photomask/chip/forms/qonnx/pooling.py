"""Writes maxima, averages and sums of real values."""

import numpy as np

from photomask.chip.forms.onnx_builder import average_windows
from photomask.chip.forms.qonnx.context import QONNX, QonnxGraph
from photomask.chip.operators import AveragePool, MaxPool, Sum
from photomask.chip.program import Step


@QONNX.of(MaxPool)
def max_pool(operator: MaxPool, graph: QonnxGraph, step: Step) -> None:
    """Adds a MaxPool node behind a Pad node with the smallest value, which is never the maximum."""
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
        value = graph.padded(step, ((0, 0), (0, 0), *amounts), x.low)
    graph.finish(
        step, graph.units[x.name], "MaxPool", [value], kernel_shape=operator.kernel,
        strides=operator.stride, dilations=operator.dilation,
    )  # fmt: skip


@QONNX.of(AveragePool)
def average_pool(operator: AveragePool, graph: QonnxGraph, step: Step) -> None:
    """Adds an AveragePool node; one unit of the sum is worth `scale / elements of the kernel`."""
    x = graph.edge(step.inputs[0])
    kernel, stride = average_windows(operator, x.shape[2:])
    value = graph.centred(step, 0, operator.zero_point)
    amounts = [
        (before, (count - 1) * s - before + k - size)
        for before, count, s, k, size in zip(
            operator.padding, operator.output_size, stride, kernel, x.shape[2:], strict=True
        )
    ]
    if any(map(any, amounts)):
        value = graph.padded(step, ((0, 0), (0, 0), *amounts), operator.zero_point, value)
    unit = graph.units[x.name] / int(np.prod(kernel))
    graph.finish(step, unit, "AveragePool", [value], kernel_shape=kernel, strides=stride)


@QONNX.of(Sum)
def sum_terms(operator: Sum, graph: QonnxGraph, step: Step) -> None:
    """Adds a ReduceMean node; one unit of the sum is worth `scale / elements`."""
    value = graph.centred(step, 0, operator.zero_point)
    unit = graph.units[step.inputs[0]] / operator.terms
    graph.finish(
        step, unit, "ReduceMean", [value], axes=operator.axes, keepdims=int(operator.keep_axes)
    )
