"""Writes convolutions with dequantized weights and biases."""

from photomask.chip.forms.qdq.context import QDQ, QdqGraph
from photomask.chip.forms.qdq.weights import quantized_bias, quantized_weight
from photomask.chip.operators import Convolution
from photomask.chip.program import Step
from photomask.errors import FormError


@QDQ.of(Convolution)
def convolution(operator: Convolution, graph: QdqGraph, step: Step) -> None:
    """Adds a Conv node; padding with the zero point becomes padding with 0."""
    x = graph.program.edges[step.inputs[0]]
    padded = any(margin for pair in operator.padding for margin in pair)
    if padded and operator.padding_value != x.zero_point:
        raise FormError(
            f"it pads with {operator.padding_value}, expected its input's zero point {x.zero_point}"
        )
    graph.finish(
        step,
        "Conv",
        [graph.real(x.name), quantized_weight(graph, step), quantized_bias(graph, step)],
        pads=[margin for side in zip(*operator.padding, strict=True) for margin in side],
        strides=operator.stride,
        dilations=operator.dilation,
        group=operator.groups,
    )
