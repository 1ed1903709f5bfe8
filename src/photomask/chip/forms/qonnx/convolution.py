"""Writes convolutions of real values."""

from photomask.chip.forms.qonnx.context import QONNX, QonnxGraph
from photomask.chip.forms.qonnx.weights import quantized_weight, real_bias
from photomask.chip.operators import Convolution
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step


@QONNX.of(Convolution)
def convolution(operator: Convolution, graph: QonnxGraph, step: Step) -> None:
    """Adds a Conv node.

    Padding with the zero point becomes padding with 0. Other padding gets a Pad node before the
    Conv node.
    """
    x = graph.edge(step.inputs[0])
    value, padding = graph.centred(step, 0, x.zero_point), operator.padding
    if operator.padding_value != x.zero_point and any(map(any, padding)):
        value = graph.padded(step, ((0, 0), (0, 0), *padding), operator.padding_value)
        padding = ((0, 0),) * len(padding)
    weight, unit = quantized_weight(graph, step)
    codes = effective_weight(graph.program.parameters(step))
    bias = real_bias(graph, step, codes, unit)
    graph.finish(
        step, unit.reshape(-1, *(1,) * len(padding)), "Conv", [value, weight, bias],
        strides=operator.stride, dilations=operator.dilation, group=operator.groups,
        kernel_shape=codes.shape[2:], pads=[*(a for a, _ in padding), *(b for _, b in padding)],
    )  # fmt: skip
