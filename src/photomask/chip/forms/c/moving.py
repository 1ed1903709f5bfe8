"""Writes operators that move integers, as loops that copy, and constants, as arrays."""

import math

import numpy as np

from photomask.chip.forms.c.context import C, Context, cast
from photomask.chip.forms.c.loops import Operand, nest
from photomask.chip.forms.c.tensors import Tensor
from photomask.chip.forms.c.text import comment, literal
from photomask.chip.operators import Concatenate, Constant, Gather, Pad, Permute, Reshape, Slice


@C.of(Concatenate)
def concatenate(operator: Concatenate, context: Context) -> list[str]:
    """Returns loops that copy one input after the other."""
    axis, at = operator.axis, 0
    lines: list[str] = []
    for name, x in zip(context.input_names, context.inputs, strict=True):
        start = at * _step(context.store.y, axis)
        lines += _copy(context, name, x, x.shape, x.strides, start)
        at += x.shape[axis]
    return lines


@C.of(Permute)
def permute(operator: Permute, context: Context) -> list[str]:
    """Returns loops that read the input with its strides in another order."""
    x = context.inputs[0]
    strides = tuple(x.strides[axis] for axis in operator.order)
    return _copy(context, "x", x, context.store.y.shape, strides)


@C.of(Slice)
def slice_(operator: Slice, context: Context) -> list[str]:
    """Returns loops that read every `step`-th element from a start."""
    x, y = context.inputs[0], context.store.y
    first, _, _ = slice(operator.start, operator.stop, operator.step).indices(
        x.shape[operator.axis]
    )
    strides = list(x.strides)
    strides[operator.axis] *= operator.step
    return _copy(context, "x", x, y.shape, tuple(strides), 0, first * x.strides[operator.axis])


@C.of(Pad)
def pad(operator: Pad, context: Context) -> list[str]:
    """Returns loops that fill the output with the constant, then copy what is not cropped."""
    x, y = context.inputs[0], context.store.y
    value = literal(operator.value, "int64_t" if y.ctype.endswith("64_t") else "int32_t")
    pads = any(max(pair) > 0 for pair in operator.amounts)
    fill = [f"for (int i = 0; i < {y.elements}; i++) {{", f"    y[i] = {value};", "}"]
    sizes: list[int] = []
    start, first = 0, 0
    for axis, (before, after) in enumerate(operator.amounts):
        sizes.append(x.shape[axis] + min(before, 0) + min(after, 0))
        start += max(before, 0) * _step(y, axis)
        first += max(-before, 0) * x.strides[axis]
    copy = _copy(context, "x", x, tuple(sizes), x.strides, start, first)
    return [*fill, *copy] if pads else copy


@C.of(Gather)
def gather(operator: Gather, context: Context) -> list[str]:
    """Returns loops that read the input through a table of indices."""
    x, y = context.inputs[0], context.store.y
    through = {}
    if x.shape[operator.axis] > 1:
        index = context.constant("index", context.parameters["index"], "indices")
        through = {y.order.index(operator.axis): index + "[{}]"}
    operands = {**_target(context), "x": Operand(y.in_order(x.strides), 0, through)}
    return nest(
        y.in_order(y.shape), operands, lambda at: [_line(at["y"], "x", at["x"], x, context.store.y)]
    )


@C.of(Constant)
def constant(operator: Constant, context: Context) -> list[str]:
    """Returns no lines, because readers read the constant array directly."""
    y = context.output
    context.array = context.constants.add(
        f"{context.name}_value",
        context.parameters["value"].transpose(y.order),
        comment(f"edge {context.edge}: {y.description}"),
        y.ctype,
    )
    return []


@C.of(Reshape)
def reshape(operator: Reshape, context: Context) -> list[str]:
    """Returns loops that copy in the order of the axes, which is not always the order of memory."""
    x, y = context.inputs[0], context.store.y
    if _is_row_major(y):
        rows = _row_major(x.shape)
        operands = {"x": Operand(x.in_order(x.strides)), "y": Operand(x.in_order(rows))}
        sizes = x.in_order(x.shape)
    elif _is_row_major(x):
        rows = _row_major(y.shape)
        operands = {"x": Operand(y.in_order(rows)), "y": Operand(y.in_order(y.strides))}
        sizes = y.in_order(y.shape)
    else:
        return [
            f"for (int i = 0; i < {x.elements}; i++) {{",
            f"    {_line(_of_position(y), 'x', _of_position(x), x, y)}",
            "}",
        ]
    return nest(sizes, operands, lambda at: [_line(at["y"], "x", at["x"], x, y)])


def _copy(
    context: Context,
    name: str,
    x: Tensor,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
    start: int = 0,
    first: int = 0,
) -> list[str]:
    """Returns loops over `sizes` that copy from offset `first` in `x` to offset `start` in `y`."""
    y = context.store.y
    steps = tuple(_step(y, axis) if size > 1 else 0 for axis, size in enumerate(sizes))
    operands = {
        "y": Operand(y.in_order(steps), start),
        "x": Operand(y.in_order(strides), first),
    }
    return nest(
        y.in_order(sizes), operands, lambda at: [_line(at["y"], name, at["x"], x, context.store.y)]
    )


def _target(context: Context) -> dict[str, Operand]:
    return {"y": Operand(context.store.y.in_order(context.store.y.strides))}


def _line(y_at: str, name: str, x_at: str, x: Tensor, y: Tensor) -> str:
    return f"y[{y_at}] = {cast(f'{name}[{x_at}]', x.ctype, y.ctype)};"


def _step(tensor: Tensor, axis: int) -> int:
    """Returns the distance of adjacent elements along an axis, also if the axis has one element."""
    place = tensor.order.index(axis)
    return math.prod(tensor.shape[later] for later in tensor.order[place + 1 :])


def _is_row_major(tensor: Tensor) -> bool:
    long = [axis for axis in tensor.order if tensor.shape[axis] > 1]
    return long == sorted(long)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(n) for n in np.cumprod((1, *shape[:0:-1]))[::-1])


def _of_position(tensor: Tensor) -> str:
    """Returns the offset of the element at position `i` in the order of the axes."""
    terms = []
    for axis, (size, rows) in enumerate(zip(tensor.shape, _row_major(tensor.shape), strict=True)):
        if size > 1:
            terms.append(f"i / {rows} % {size} * {tensor.strides[axis]}")
    return " + ".join(terms) or "0"
