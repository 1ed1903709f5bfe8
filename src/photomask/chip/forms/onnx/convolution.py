"""Writes convolutions as ConvInteger."""

from photomask.chip.forms.onnx.context import ONNX, IntegerGraph
from photomask.chip.forms.onnx.limbs import add_up, split_activation, split_weights
from photomask.chip.operators import Convolution
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step


@ONNX.of(Convolution)
def convolution(operator: Convolution, graph: IntegerGraph, step: Step) -> None:
    """Adds nodes that compute a convolution.

    ConvInteger pads with the zero point of its input, so `padding_value` becomes this zero point.
    The difference that this makes to every sum is added to the bias.
    """
    parameters = graph.program.parameters(step)
    weight = effective_weight(parameters)
    padded = any(margin for pair in operator.padding for margin in pair)
    zero = operator.padding_value if padded else 0
    bias = parameters["bias"] + zero * weight.reshape(len(weight), -1).sum(axis=1)
    second = split_weights(graph, step, weight, 0)
    largest = max(part.magnitude for part in second)
    add_up(
        graph,
        step,
        "ConvInteger",
        (split_activation(graph, step, step.inputs[0], zero, largest), second),
        bias.reshape(-1, *(1,) * len(operator.stride)),
        pads=[margin for side in zip(*operator.padding, strict=True) for margin in side],
        strides=operator.stride,
        dilations=operator.dilation,
        group=operator.groups,
    )
