"""Along which axis of each edge the lanes of a word lie.

Convolutions and pooling want their channels there, axis 1; what computes along rows (a linear
layer, a product, softmax, a norm) wants the last axis. An edge lies as its maker writes it, else as
its first reader wants it, else as its neighbours lie; a step that wants it otherwise makes a copy.
"""

from dataclasses import dataclass

from photomask.chip.operators import Interpolate, Normalize, Shape, Softmax
from photomask.chip.program import IntegerProgram


@dataclass(frozen=True)
class Copy:
    """An input that a step needs otherwise than it lies, in memory while the step runs."""

    step: str
    number: int
    """Of the input."""
    axis: int
    """Along which its lanes lie."""
    shape: Shape
    in_accumulators: bool
    """Else where the input itself lies."""


def channel_axes(program: IntegerProgram) -> dict[str, int]:
    """Returns for each edge the axis along which its lanes lie."""
    shapes = {name: edge.shape for name, edge in program.edges.items()}
    axes: dict[str, int] = {}
    for step in program.steps:
        for number, name in enumerate(step.inputs):
            axis = step.operator.input_lane_axis(number, shapes[name])
            if axis is not None:
                axes.setdefault(name, axis)
    for step in program.steps:
        inputs = [shapes[name] for name in step.inputs]
        axis = step.operator.output_lane_axis(inputs, shapes[step.output])
        if axis is not None:
            axes[step.output] = axis
    for step in reversed(program.steps):
        for name in step.inputs:
            if name not in axes and step.output in axes:
                axis, output = axes[step.output], shapes[step.output]
                _propose(axes, name, step.operator.axis_before(axis, shapes[name], output))
    for step in program.steps:
        for name in step.inputs:
            if step.output not in axes and name in axes:
                shape, output = shapes[name], shapes[step.output]
                _propose(axes, step.output, step.operator.axis_behind(axes[name], shape, output))
    return {name: axes.get(name, min(1, len(shape) - 1)) for name, shape in shapes.items()}


def copies(program: IntegerProgram, axes: dict[str, int]) -> list[Copy]:
    """Returns what the steps copy before they compute.

    Masks, shifts of channels and what is left between two entries of a table are brought into a
    copy too, which is as wide as a sum.
    """
    found = []
    for step in program.steps:
        operator, roles = step.operator, step.tensors
        prepared = isinstance(operator, Normalize) and "channel_shift" in roles
        if isinstance(operator, Softmax):
            prepared = "mask" in roles or len(step.inputs) > 1
        if isinstance(operator, Interpolate):
            shape = program.edges[step.output].shape
            found.append(Copy(step.name, 0, axes[step.output], shape, in_accumulators=True))
        for number, name in enumerate(step.inputs):
            shape = program.edges[name].shape
            axis = operator.input_lane_axis(number, shape)
            if axis is not None and (axis != axes[name] or prepared):
                found.append(Copy(step.name, number, axis, shape, prepared))
    return found


def _propose(axes: dict[str, int], name: str, axis: int | None) -> None:
    if axis is not None and axis > 0:
        axes[name] = axis
