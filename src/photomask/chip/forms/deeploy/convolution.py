"""Convolutions, whose bias is left to the rescaling behind them."""

from photomask.chip.forms.deeploy.context import DEEPLOY, DeeployGraph
from photomask.chip.operators import Convolution
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step
from photomask.errors import FormError


@DEEPLOY.of(Convolution)
def convolution(operator: Convolution, graph: DeeployGraph, step: Step) -> None:
    """A convolution without a bias, of one group or of one for each channel."""
    parameters = graph.program.parameters(step)
    weight = effective_weight(parameters)
    channels = graph.program.edges[step.inputs[0]].shape[1]
    if weight.ndim != 4 or any(d != 1 for d in operator.dilation):
        raise FormError("Deeploy's kernels are two-dimensional and not dilated")
    if operator.groups not in (1, channels) or (operator.groups > 1 and len(weight) != channels):
        raise FormError(f"{operator.groups} groups; Deeploy has 1, or one for each channel")
    if operator.padding_value:
        raise FormError(f"it pads with {operator.padding_value}; Deeploy pads with 0")
    graph.convolve(
        step, graph.name(step.output), weight, stride=operator.stride, groups=operator.groups,
        padding=operator.padding,
    )  # fmt: skip
    graph.folded[step.output] = parameters["bias"]
