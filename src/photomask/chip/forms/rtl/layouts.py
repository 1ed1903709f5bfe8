"""Along which axis of each edge the lanes of a word lie.

Convolutions and pooling want their channels there, axis 1; what computes along rows (a linear
layer, a product, softmax, a norm) wants the last axis. An edge lies as its maker writes it, else as
its first reader wants it, else as its neighbours lie; a step that wants it otherwise makes a copy.
"""

import math
from dataclasses import dataclass

from photomask.chip.operators import (
    Concatenate,
    Gather,
    Interpolate,
    Normalize,
    Pad,
    Permute,
    Reshape,
    Shape,
    Slice,
    Softmax,
    Sum,
)
from photomask.chip.program import IntegerProgram, Step

MAPS = frozenset({"convolution", "max_pool", "average_pool"})
"""Operators that walk over maps of channels."""
ROWS = frozenset({"linear", "matmul", "normalize"})
"""Operators that compute along the last axis of all that they read and write."""
ELEMENTWISE = frozenset({"add", "clamp", "interpolate", "lookup", "multiply", "requantize"})


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
            axis = input_axis(step, number, shapes[name])
            if axis is not None:
                axes.setdefault(name, axis)
    for step in program.steps:
        axis = _output_axis(step, shapes)
        if axis is not None:
            axes[step.output] = axis
    for step in reversed(program.steps):
        for name in step.inputs:
            if name not in axes and step.output in axes:
                _propose(axes, name, _before(step, name, axes[step.output], shapes))
    for step in program.steps:
        for name in step.inputs:
            if step.output not in axes and name in axes:
                _propose(axes, step.output, _after(step, name, axes[name], shapes))
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
            axis = input_axis(step, number, shape)
            if axis is not None and (axis != axes[name] or prepared):
                found.append(Copy(step.name, number, axis, shape, prepared))
    return found


def input_axis(step: Step, number: int, shape: Shape) -> int | None:
    """Returns the axis of an input that must lie along the lanes; None if any may."""
    kind, operator = step.operator.kind, step.operator
    if kind in MAPS:
        return min(1, len(shape) - 1)
    if kind in ROWS or (kind == "softmax" and number == 0):
        return len(shape) - 1
    if kind == "embedding":
        return 0
    if isinstance(operator, Sum):
        kept = [axis for axis in (1, len(shape) - 1) if axis not in operator.axes]
        return kept[0] if kept else 0
    return None


def _output_axis(step: Step, shapes: dict[str, Shape]) -> int | None:
    """Returns the axis of the output that a step writes along the lanes; None if any may."""
    kind, operator = step.operator.kind, step.operator
    if kind in MAPS:
        return 1
    if kind in ROWS or kind in ("softmax", "embedding"):
        return len(shapes[step.output]) - 1
    if isinstance(operator, Sum):
        axis = input_axis(step, 0, shapes[step.inputs[0]])
        before = 0 if operator.keep_axes else sum(other < (axis or 0) for other in operator.axes)
        return (axis or 0) - before
    return None


def _before(step: Step, name: str, axis: int, shapes: dict[str, Shape]) -> int | None:
    """Returns the axis of an input that becomes `axis` of the output."""
    operator, shape, output = step.operator, shapes[name], shapes[step.output]
    if isinstance(operator, Permute):
        return operator.order[axis]
    if isinstance(operator, Reshape):
        return _same_axis(output, axis, shape)
    return axis - len(output) + len(shape) if _keeps_axes(step) else None


def _after(step: Step, name: str, axis: int, shapes: dict[str, Shape]) -> int | None:
    """Returns the axis of the output that an axis of an input becomes."""
    operator, shape, output = step.operator, shapes[name], shapes[step.output]
    if isinstance(operator, Permute):
        return operator.order.index(axis)
    if isinstance(operator, Reshape):
        return _same_axis(shape, axis, output)
    return axis + len(output) - len(shape) if _keeps_axes(step) else None


def _keeps_axes(step: Step) -> bool:
    moves = isinstance(step.operator, Concatenate | Gather | Pad | Slice)
    return moves or step.operator.kind in ELEMENTWISE


def _same_axis(shape: Shape, axis: int, other: Shape) -> int | None:
    """Returns the axis of another shape with as many elements, and as many rows of them."""
    rows = math.prod(shape[:axis])
    for candidate, size in enumerate(other):
        if size == shape[axis] and math.prod(other[:candidate]) == rows:
            return candidate
    return None


def _propose(axes: dict[str, int], name: str, axis: int | None) -> None:
    if axis is not None and axis > 0:
        axes[name] = axis
