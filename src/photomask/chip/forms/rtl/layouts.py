"""Chooses for each edge the axis that lies along the lanes of a memory word.

Convolutions and pooling need their channels, axis 1, along the lanes. Operators that compute along
rows (a linear layer, a matrix product, softmax, a norm) need the last axis there. The step that
writes an edge decides its axis. If that step has no preference, the first step that reads the edge
decides. If none has one, the edge takes over the axis of the edges before or behind it. A step that
needs another axis than its input has makes a copy of the input.
"""

from dataclasses import dataclass

from photomask.chip.operators import Interpolate, Normalize, Shape, Softmax
from photomask.chip.program import IntegerProgram


@dataclass(frozen=True)
class Copy:
    """A copy of an input that a step needs in another layout; it exists while the step runs."""

    step: str
    number: int
    """The number of the input."""
    axis: int
    """The axis that lies along the lanes."""
    shape: Shape
    in_accumulators: bool
    """True for the accumulator memory, False for the memory that holds the input itself."""


def channel_axes(program: IntegerProgram) -> dict[str, int]:
    """Returns the axis of each edge that lies along the lanes."""
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
    """Returns the copies that the steps make before they compute.

    A copy is also made for scores that get a mask, for channels that get a shift, and for the
    remainder between two entries of a table. These copies are as wide as an accumulator.
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
