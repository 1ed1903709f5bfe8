"""Computes the output shapes of float operations without running them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from photomask.chip.graph import operations
from photomask.chip.onnx_import.values import CannotImport

Shape = tuple[int, ...]


def output_shape(
    operation: operations.Operation, shapes: Sequence[Shape], constants: Mapping[str, Tensor]
) -> Shape:
    """Returns the shape of an operation's output for one sample.

    Sizes can be 0 or negative where windows or slices hold no element.

    Raises:
        CannotImport: the operation does not support the shapes.
    """
    match operation:
        case operations.Constant():
            return tuple(constants["value"].shape)
        case operations.Convolution():
            return _convolved(operation, shapes[0], tuple(constants["weight"].shape))
        case operations.Linear():
            outputs, inputs = constants["weight"].shape
            _require(shapes[0][-1] == inputs, f"{inputs} inputs of a weight, and {shapes[0]}")
            return (*shapes[0][:-1], outputs)
        case operations.Matmul():
            a, b = shapes
            _require(min(len(a), len(b)) > 2 and a[-1] == b[-2], f"a product of {a} and {b}")
            return (*_broadcast([a[:-2], b[:-2]]), a[-2], b[-1])
        case operations.Add() | operations.Multiply():
            return _broadcast(shapes)
        case operations.Concatenate(axis):
            rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
            _require(len(rest) == 1, f"a concatenation of {list(shapes)} along axis {axis}")
            joined = sum(shape[axis] for shape in shapes)
            return (*shapes[0][:axis], joined, *shapes[0][axis + 1 :])
        case operations.MaxPool() | operations.AveragePool():
            return (*shapes[0][:2], *_windows(operation, shapes[0][2:]))
        case operations.Mean(axes, keep_axes):
            kept = [1 if axis in axes else size for axis, size in enumerate(shapes[0])]
            return tuple(n for axis, n in enumerate(kept) if keep_axes or axis not in axes)
    return _moved(operation, shapes[0])


def _moved(operation: operations.Operation, shape: Shape) -> Shape:
    match operation:
        case operations.Reshape(rest):
            _require(math.prod(rest) == math.prod(shape), f"a reshape of {shape} to {rest}")
            return (1, *rest)
        case operations.Permute(order):
            return tuple(shape[axis] for axis in order)
        case operations.Slice(axis, start, stop, step):
            taken = len(range(*slice(start, stop, step).indices(shape[axis])))
            return (*shape[:axis], taken, *shape[axis + 1 :])
        case operations.Gather(axis, index):
            return (*shape[:axis], len(index), *shape[axis + 1 :])
        case operations.Pad(amounts):
            return tuple(n + sum(pair) for n, pair in zip(shape, amounts, strict=True))
        case operations.Clamp() | operations.Copy() | operations.Pointwise() | operations.Softmax():
            return shape
    raise CannotImport(f"no rule says what shape {operation.kind} makes of {shape}")


def _convolved(operation: operations.Convolution, x: Shape, weight: Shape) -> Shape:
    groups = operation.groups
    _require(
        x[1] == weight[1] * groups and weight[0] % groups == 0,
        f"a weight of shape {weight} with {groups} groups, and {x[1]} channels",
    )
    sizes = zip(
        x[2:], operation.padding, weight[2:], operation.stride, operation.dilation, strict=True
    )
    return (
        x[0],
        weight[0],
        *((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, p, k, s, d in sizes),
    )


def _windows(operation: operations.MaxPool | operations.AveragePool, spatial: Shape) -> list[int]:
    """Returns the numbers of windows; with `ceil_mode` none starts after the end of the input."""
    dilation = (1,) * len(spatial)
    if isinstance(operation, operations.MaxPool):
        dilation = operation.dilation
    counts = []
    for size, kernel, stride, before, step in zip(
        spatial, operation.kernel, operation.stride, operation.padding, dilation, strict=True
    ):
        room = size + 2 * before - step * (kernel - 1) - 1
        count = (-(-room // stride) if operation.ceil_mode else room // stride) + 1
        counts.append(count - (operation.ceil_mode and (count - 1) * stride >= size + before))
    return counts


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError as error:
        raise CannotImport(f"its inputs of shapes {list(shapes)} do not broadcast") from error


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise CannotImport(f"its shapes do not fit each other: {problem}")
