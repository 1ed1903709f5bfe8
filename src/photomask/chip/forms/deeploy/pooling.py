"""Writes maxima, averages and sums over windows; sums are depthwise convolutions with ones."""

import numpy as np

from photomask.chip.forms.deeploy.context import DEEPLOY, DeeployGraph
from photomask.chip.forms.onnx_builder import average_windows
from photomask.chip.operators import AveragePool, MaxPool, Sum
from photomask.chip.program import Step
from photomask.errors import FormError

NO_PADDING = ((0, 0), (0, 0))


@DEEPLOY.of(MaxPool)
def max_pool(operator: MaxPool, graph: DeeployGraph, step: Step) -> None:
    """Adds a MaxPool node, which pads with 0."""
    x = graph.program.edges[step.inputs[0]]
    if len(operator.kernel) != 2 or any(d != 1 for d in operator.dilation):
        raise FormError(
            "its windows are not two-dimensional or are dilated, but Deeploy's windows are "
            "two-dimensional and not dilated"
        )
    padding = _padding(operator, graph, step)
    if any(map(any, padding)) and x.low < 0:
        raise FormError(
            "a window at the border may hold only negative codes, but Deeploy pads with 0, which "
            "is larger"
        )
    before, after = zip(*padding, strict=True)
    graph.node(
        "MaxPool", [graph.name(x.name)], graph.name(step.output), step, ceil_mode=0,
        strides=operator.stride, kernel_shape=operator.kernel, pads=(*before, *after),
    )  # fmt: skip


@DEEPLOY.of(AveragePool)
def average_pool(operator: AveragePool, graph: DeeployGraph, step: Step) -> None:
    """Adds the sum of each window, which the rescaling behind it divides; zero points are 0."""
    x = graph.program.edges[step.inputs[0]]
    _require_maps(x.shape)
    kernel, stride = average_windows(operator, x.shape[2:])
    padding = NO_PADDING if operator.adaptive else _padding(operator, graph, step)
    graph.convolve(
        step, graph.name(step.output), _ones(x.shape[1], kernel), stride=stride,
        groups=x.shape[1], padding=padding,
    )  # fmt: skip


@DEEPLOY.of(Sum)
def sum_terms(operator: Sum, graph: DeeployGraph, step: Step) -> None:
    """Adds nodes that sum over both spatial axes."""
    x, output = graph.program.edges[step.inputs[0]], graph.name(step.output)
    _require_maps(x.shape)
    if operator.axes != (2, 3):
        raise FormError(
            f"it sums over the axes {operator.axes}, but this form sums only over (2, 3)"
        )
    channels, ones = x.shape[1], _ones(x.shape[1], x.shape[2:])
    if operator.keep_axes:
        graph.convolve(step, output, ones, stride=(1, 1), groups=channels, padding=NO_PADDING)
        return
    summed = graph.value(f"{step.name}_sum", (*x.shape[:2], 1, 1))
    graph.convolve(step, summed, ones, stride=(1, 1), groups=channels, padding=NO_PADDING)
    shape = np.array(graph.program.edges[step.output].shape)
    wanted = graph.tensor(f"{step.name}_shape", shape, np.int64)
    graph.node("Reshape", [summed, wanted], output, step)


def _require_maps(shape: tuple[int, ...]) -> None:
    """Raises an error for an input that is not a feature map [N, C, H, W]."""
    if len(shape) != 4:
        raise FormError(
            f"its input has the shape {shape}, but this form sums only over two spatial axes"
        )


def _ones(channels: int, kernel: tuple[int, ...]) -> np.ndarray:
    """Returns the weights of a depthwise convolution that sums windows."""
    return np.ones((channels, 1, *kernel), dtype=np.int64)


def _padding(
    operator: AveragePool | MaxPool, graph: DeeployGraph, step: Step
) -> list[tuple[int, int]]:
    """Returns the padding before and after each spatial axis; none after if windows end earlier."""
    spatial = graph.program.edges[step.inputs[0]].shape[2:]
    return [
        (before, max(0, (count - 1) * stride - before + kernel - size))
        for before, count, stride, kernel, size in zip(
            operator.padding, operator.output_size, operator.stride, operator.kernel, spatial,
            strict=True,
        )
    ]  # fmt: skip
