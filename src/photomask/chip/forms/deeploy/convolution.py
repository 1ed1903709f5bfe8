"""Writes convolutions; the rescaling behind them adds their bias."""

from photomask.chip.forms.deeploy.context import DEEPLOY, DeeployGraph
from photomask.chip.operators import Convolution
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step
from photomask.errors import FormError


@DEEPLOY.of(Convolution)
def convolution(operator: Convolution, graph: DeeployGraph, step: Step) -> None:
    """Adds a convolution without a bias, with one group or one group for each channel."""
    parameters = graph.program.parameters(step)
    weight = effective_weight(parameters)
    channels = graph.program.edges[step.inputs[0]].shape[1]
    if weight.ndim != 4 or any(d != 1 for d in operator.dilation):
        raise FormError(
            "its kernel is not two-dimensional or is dilated, but Deeploy's kernels are "
            "two-dimensional and not dilated"
        )
    if operator.groups not in (1, channels) or (operator.groups > 1 and len(weight) != channels):
        raise FormError(
            f"it has {operator.groups} groups, but Deeploy supports one group, or one for each "
            "channel"
        )
    if operator.padding_value:
        raise FormError(f"it pads with {operator.padding_value}, but Deeploy pads with 0")
    graph.convolve(
        step, graph.name(step.output), weight, stride=operator.stride, groups=operator.groups,
        padding=operator.padding,
    )  # fmt: skip
    graph.folded[step.output] = parameters["bias"]
