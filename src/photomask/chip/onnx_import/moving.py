"""Operators that move or select values."""

import math
from collections.abc import Sequence

import numpy as np

from photomask.chip.graph.operations import Gather, MaxPool, Operation, Pad, Permute, Reshape, Slice
from photomask.chip.onnx_import.call import Call
from photomask.chip.onnx_import.constants import MOST_SHAPE_NUMBERS, apply_to_constant
from photomask.chip.onnx_import.graph import Rescale
from photomask.chip.onnx_import.layers import margins, windows_attribute
from photomask.chip.onnx_import.lookups import chosen
from photomask.chip.onnx_import.rounding import is_code
from photomask.chip.onnx_import.values import (
    CannotImport,
    Dequantized,
    Floats,
    Integers,
    Positions,
    Real,
    Value,
)

_CONSTANT = (Floats, Integers)


def identity(call: Call) -> Value:
    """The input itself."""
    value = call.value(0)
    if value is None:
        raise CannotImport("its input is missing")
    if isinstance(value, Real) and not value.exact and call.pending() is None:
        raise CannotImport("its input is not quantized and read more than once")
    return value


def dropout(call: Call) -> Value:
    """The input itself, as Dropout is after training."""
    training, ratio = call.value(2), call.value(1)
    if training is not None:
        flag = training.array if isinstance(training, Integers) else None
        drops_nothing = isinstance(ratio, Floats) and not ratio.array.any()
        if flag is None or flag.size != 1 or (flag.any() and not drops_nothing):
            raise CannotImport(
                "its training_mode is not constantly false, so it drops elements at random: "
                "export the model in evaluation mode"
            )
    if any(call.node.output[1:]) and call.builder.readers[call.node.output[1]]:
        raise CannotImport("its second output, the mask, is read")
    return identity(call)


def reshape(call: Call) -> Value:
    """Same elements in the same order; the batch stays first."""
    wanted = call.shape_numbers(1, "shape")
    if wanted is None:
        raise CannotImport("its shape is missing")
    value = call.value(0)
    if isinstance(value, _CONSTANT):
        return apply_to_constant(call, np.reshape, wanted)
    shape = call.builder.shape(call.real())
    if not call.flag("allowzero", 0):
        if any(n == 0 and at >= len(shape) for at, n in enumerate(wanted)):
            raise CannotImport(f"the shape {list(wanted)[:8]} of {list(shape)}")
        wanted = tuple(shape[at] if n == 0 else n for at, n in enumerate(wanted))
    return _reshaped(call, wanted)


def _reshaped(call: Call, wanted: Sequence[int]) -> Value:
    """Reshapes to a shape whose first number is the batch, as a number or as -1."""
    shape = call.builder.shape(call.real())
    elements, rest = math.prod(shape), list(wanted[1:])
    if -1 in rest:
        others = math.prod(n for n in rest if n != -1)
        if rest.count(-1) > 1 or others < 1 or elements % others:
            raise CannotImport(f"the shape {list(wanted)[:8]} of {list(shape)}")
        rest[rest.index(-1)] = elements // others
    if not rest or min(rest) < 1 or math.prod(rest) != elements:
        raise CannotImport(f"the shape {list(wanted)[:8]} of {list(shape)} moves the batch")
    return call.move(Reshape(tuple(rest)), (1, *rest))


def flatten(call: Call) -> Value:
    """All axes behind the batch become one."""
    if call.axis(call.integer("axis", 1)) != 1:
        raise CannotImport("it flattens from another axis than 1")
    return _reshaped(call, (-1, math.prod(call.builder.shape(call.real()))))


def squeeze(call: Call) -> Value:
    """Drops axes of one element."""
    axes = call.shape_numbers(1, "axes")
    if isinstance(call.value(0), _CONSTANT):
        return apply_to_constant(call, np.squeeze, axes if axes else None)
    shape = call.builder.shape(call.real())
    if axes is None:
        raise CannotImport("its axes are not named, and the batch may be 1")
    dropped = set(call.axes(axes, len(shape)))
    if 0 in dropped or any(shape[axis] != 1 for axis in dropped):
        raise CannotImport(f"axes {sorted(dropped)} of {list(shape)}")
    return _reshaped(call, [size for axis, size in enumerate(shape) if axis not in dropped])


def unsqueeze(call: Call) -> Value:
    """Adds axes of one element."""
    axes = call.shape_numbers(1, "axes") or ()
    if isinstance(call.value(0), _CONSTANT):
        return apply_to_constant(call, np.expand_dims, axes)
    shape = list(call.builder.shape(call.real()))
    rank = len(shape) + len(axes)
    for axis in sorted(call.axes(axes, rank)):
        if axis == 0:
            raise CannotImport("an axis before the batch")
        shape.insert(axis, 1)
    return _reshaped(call, shape)


def transpose(call: Call) -> Value:
    """New order of the axes."""
    value = call.value(0)
    order = call.integers("perm", None)
    if isinstance(value, Dequantized | Floats | Integers):
        array = value.codes if isinstance(value, Dequantized) else value.array
        order = order or tuple(reversed(range(array.ndim)))
        if sorted(order) != list(range(array.ndim)):
            raise CannotImport(f"the order {list(order)[:8]} of {array.ndim} axes")
        if isinstance(value, Dequantized):
            return value.transposed(order)
        return apply_to_constant(call, np.transpose, order)
    order = order or tuple(reversed(range(call.rank)))
    if sorted(order) != list(range(call.rank)) or order[0] != 0:
        raise CannotImport(f"the order {list(order)[:8]} moves the batch, or is none")
    return call.move(Permute(order))


def slice_axes(call: Call) -> Value:
    """`start:stop:step` along some axes."""
    starts, ends = (call.shape_numbers(at, name) for at, name in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        raise CannotImport("its starts or ends are missing")
    value = call.value(0)
    rank = value.array.ndim if isinstance(value, _CONSTANT) else call.rank
    axes = call.shape_numbers(3, "axes") or tuple(range(len(starts)))
    steps = call.shape_numbers(4, "steps") or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise CannotImport("starts, ends, axes and steps do not belong together")
    parts = {
        axis: slice(start, None if step < 0 and end <= -(1 << 31) else end, step)
        for axis, start, end, step in zip(call.axes(axes, rank), starts, ends, steps, strict=True)
    }
    if isinstance(value, _CONSTANT):
        index = tuple(parts.get(axis, slice(None)) for axis in range(rank))
        return apply_to_constant(call, lambda array, _: array[index], None)
    shape, operations = call.builder.shape(call.real()), []
    for axis, part in parts.items():
        taken = range(*part.indices(shape[axis]))
        if len(taken) == shape[axis] and part.step > 0:
            continue
        if axis == 0 or not taken:
            raise CannotImport(f"{part} of axis {axis}: it cuts the batch, or leaves nothing")
        operations.append(_selection(axis, taken))
    return _moved(call, operations)


def _selection(axis: int, taken: range) -> Operation:
    if taken.step > 0:
        return Slice(axis, taken.start, taken.stop, taken.step)
    return Gather(axis, tuple(taken))


def _moved(call: Call, operations: Sequence[Operation]) -> Value:
    """Moves values by one operation after the other; the last makes the output."""
    if not operations:
        return identity(call)
    last = len(operations) - 1
    found = call.move(operations[0], tensor=f"{call.output}_part" if last else None)
    for at, operation in enumerate(operations[1:], start=1):
        tensor = f"{call.output}_part" if at < last else None
        found = Real(call.emit(operation, [found.node], tensor=tensor).node, exact=found.exact)
    return found


def split(call: Call) -> list[Value]:
    """Consecutive pieces of one axis."""
    axis = call.axis(call.integer("axis", 0))
    size, count = call.builder.shape(call.real())[axis], len(call.node.output)
    sizes = call.shape_numbers(1, "split")
    if sizes is None:
        piece = -(-size // count)
        sizes = (*(piece,) * (count - 1), size - piece * (count - 1))
    if axis == 0 or len(sizes) != count or sum(sizes) != size or min(sizes) < 1:
        raise CannotImport(f"pieces {list(sizes)[:8]} of axis {axis}, which has {size} elements")
    call.quantized()
    ends = np.cumsum(sizes).tolist()
    return [
        call.move(Slice(axis, end - piece, end, 1), tensor=tensor)
        for piece, end, tensor in zip(sizes, ends, call.node.output, strict=True)
    ]


def gather(call: Call) -> Value:
    """Elements of one axis by a constant index, or of a constant table by codes."""
    index = call.value(1)
    value = call.value(0)
    if isinstance(index, Positions):
        return chosen(call, index)
    if not isinstance(index, Integers):
        raise CannotImport("its index is not constant")
    if isinstance(value, _CONSTANT):
        axis = call.axis(call.integer("axis", 0), value.array.ndim)
        if index.array.size > MOST_SHAPE_NUMBERS:
            raise CannotImport("its index is too long")
        call.builder.spend(value.array.size // max(1, value.array.shape[axis]) * index.array.size)
        return apply_to_constant(
            call, lambda array, _: np.take(array, index.array, axis=axis), None
        )
    axis = call.axis(call.integer("axis", 0))
    shape = list(call.builder.shape(call.real()))
    wanted = call.shape_numbers(1, "index") or ()
    if axis == 0 or index.array.ndim > 1 or not wanted:
        raise CannotImport("it selects samples, or by an index that is no list")
    if not all(-shape[axis] <= at < shape[axis] for at in wanted):
        raise CannotImport(f"its index leaves axis {axis}, which has {shape[axis]} elements")
    operations: list[Operation] = [Gather(axis, tuple(at % shape[axis] for at in wanted))]
    if not index.array.ndim:
        del shape[axis]
        operations.append(Reshape(tuple(shape[1:])))
    return _moved(call, operations)


def pad(call: Call) -> Value:
    """Constant elements around the input."""
    if call.word("mode", "constant") != "constant":
        raise CannotImport(f"padding by mode {call.word('mode', '')!r}")
    amounts = call.shape_numbers(1, "pads")
    value = call.constant_number(2) if call.value(2) is not None else call.number("value", 0.0)
    if amounts is None or value is None or math.isnan(value):
        raise CannotImport("its pads or its value are not constant")
    rank = call.rank
    axes = call.shape_numbers(3, "axes") or tuple(range(rank))
    count = len(axes)
    if len(amounts) != 2 * count:
        raise CannotImport(f"{len(amounts)} pads for {count} axes")
    places = call.axes(axes, rank)
    pairs = {axis: (amounts[at], amounts[at + count]) for at, axis in enumerate(places)}
    if pairs.get(0, (0, 0)) != (0, 0):
        raise CannotImport("it pads or crops the batch")
    operation = Pad(tuple(pairs.get(axis, (0, 0)) for axis in range(rank)), value)
    if call.pending() is not None:
        return call.move(operation)
    if is_code(value, call.builder.known_scale(call.quantized())):
        return call.move(operation)
    # The QuantizeLinear that follows decides which code the value becomes.
    rescaled = call.emit(Rescale(), [call.quantized()], tensor=f"{call.output}_part")
    return call.emit(operation, [rescaled.node])


def max_pool(call: Call) -> Value:
    """Maximum over windows; padding never wins."""
    kernel = call.integers("kernel_shape", None)
    if kernel is None or len(kernel) not in (1, 2) or call.rank != len(kernel) + 2:
        raise CannotImport(f"windows of shape {kernel} on {call.rank} axes")
    if any(call.node.output[1:]) and call.builder.readers[call.node.output[1]]:
        raise CannotImport("its second output, the positions, is read")
    stride = windows_attribute(call, "strides", len(kernel))
    dilation = windows_attribute(call, "dilations", len(kernel))
    padding = margins(call, kernel, stride, dilation)
    ceil_mode = call.flag("ceil_mode", 0)
    if any(before != after for before, after in padding):
        if ceil_mode:
            raise CannotImport("padding that differs before and after, with ceil_mode")
        operation = MaxPool(kernel, stride, (0,) * len(kernel), dilation, False)
        return _moved(call, [Pad(((0, 0), (0, 0), *padding), -math.inf), operation])
    before = tuple(margin for margin, _ in padding)
    return call.move(MaxPool(kernel, stride, before, dilation, ceil_mode))


def global_max_pool(call: Call) -> Value:
    """Maximum over all axes behind the channels."""
    spatial = call.builder.shape(call.real())[2:]
    if len(spatial) not in (1, 2):
        raise CannotImport(f"{len(spatial)} axes behind the channels")
    count = len(spatial)
    return call.move(MaxPool(spatial, (1,) * count, (0,) * count, (1,) * count, False))
