"""Imports operators that move or select values."""

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
    """Returns the input itself."""
    value = call.value(0)
    if value is None:
        raise CannotImport("its input is missing")
    if isinstance(value, Real) and not value.exact and call.pending() is None:
        raise CannotImport("its input has several readers, so a QuantizeLinear must come before it")
    return value


def dropout(call: Call) -> Value:
    """Returns the input itself, because Dropout does nothing after training."""
    training, ratio = call.value(2), call.value(1)
    if training is not None:
        flag = training.array if isinstance(training, Integers) else None
        drops_nothing = isinstance(ratio, Floats) and not ratio.array.any()
        if flag is None or flag.size != 1 or (flag.any() and not drops_nothing):
            raise CannotImport(
                "its training_mode is not constantly false, so it drops elements at random; "
                "export the model in evaluation mode"
            )
    if any(call.node.output[1:]) and call.builder.readers[call.node.output[1]]:
        raise CannotImport("its second output, the mask, must not be read")
    return identity(call)


def reshape(call: Call) -> Value:
    """Imports a reshape that keeps the batch as the first axis."""
    wanted = call.shape_numbers(1, "shape")
    if wanted is None:
        raise CannotImport("its shape is missing")
    value = call.value(0)
    if isinstance(value, _CONSTANT):
        return apply_to_constant(call, np.reshape, wanted)
    shape = call.builder.shape(call.real())
    if not call.flag("allowzero", 0):
        if any(n == 0 and at >= len(shape) for at, n in enumerate(wanted)):
            raise CannotImport(f"it cannot reshape {list(shape)} to {list(wanted)[:8]}")
        wanted = tuple(shape[at] if n == 0 else n for at, n in enumerate(wanted))
    return _reshaped(call, wanted)


def _reshaped(call: Call, wanted: Sequence[int]) -> Value:
    """Adds a reshape; the first number of the shape is the batch, and is ignored."""
    shape = call.builder.shape(call.real())
    elements, rest = math.prod(shape), list(wanted[1:])
    if -1 in rest:
        others = math.prod(n for n in rest if n != -1)
        if rest.count(-1) > 1 or others < 1 or elements % others:
            raise CannotImport(f"it cannot reshape {list(shape)} to {list(wanted)[:8]}")
        rest[rest.index(-1)] = elements // others
    if not rest or min(rest) < 1 or math.prod(rest) != elements:
        raise CannotImport(
            f"it reshapes {list(shape)} to {list(wanted)[:8]}, which does not keep the batch as "
            "the first axis"
        )
    return call.move(Reshape(tuple(rest)), (1, *rest))


def flatten(call: Call) -> Value:
    """Imports a flattening of all axes after the batch."""
    if call.axis(call.integer("axis", 1)) != 1:
        raise CannotImport("its axis must be 1, so that the batch stays the first axis")
    return _reshaped(call, (-1, math.prod(call.builder.shape(call.real()))))


def squeeze(call: Call) -> Value:
    """Imports the removal of axes of one element."""
    axes = call.shape_numbers(1, "axes")
    if isinstance(call.value(0), _CONSTANT):
        return apply_to_constant(call, np.squeeze, axes if axes else None)
    shape = call.builder.shape(call.real())
    if axes is None:
        raise CannotImport("its axes must be given, because the batch may have one element too")
    dropped = set(call.axes(axes, len(shape)))
    if 0 in dropped or any(shape[axis] != 1 for axis in dropped):
        raise CannotImport(
            f"it removes the axes {sorted(dropped)} of {list(shape)}; they must have one element, "
            "and the batch must stay"
        )
    return _reshaped(call, [size for axis, size in enumerate(shape) if axis not in dropped])


def unsqueeze(call: Call) -> Value:
    """Imports the insertion of axes of one element."""
    axes = call.shape_numbers(1, "axes") or ()
    if isinstance(call.value(0), _CONSTANT):
        return apply_to_constant(call, np.expand_dims, axes)
    shape = list(call.builder.shape(call.real()))
    rank = len(shape) + len(axes)
    for axis in sorted(call.axes(axes, rank)):
        if axis == 0:
            raise CannotImport("it inserts an axis before the batch")
        shape.insert(axis, 1)
    return _reshaped(call, shape)


def transpose(call: Call) -> Value:
    """Imports a permutation of the axes that keeps the batch first."""
    value = call.value(0)
    order = call.integers("perm", None)
    if isinstance(value, Dequantized | Floats | Integers):
        array = value.codes if isinstance(value, Dequantized) else value.array
        order = order or tuple(reversed(range(array.ndim)))
        if sorted(order) != list(range(array.ndim)):
            raise CannotImport(f"its perm {list(order)[:8]} is no order of {array.ndim} axes")
        if isinstance(value, Dequantized):
            return value.transposed(order)
        return apply_to_constant(call, np.transpose, order)
    order = order or tuple(reversed(range(call.rank)))
    if sorted(order) != list(range(call.rank)) or order[0] != 0:
        raise CannotImport(
            f"its perm {list(order)[:8]} must be an order of {call.rank} axes that keeps the batch "
            "first"
        )
    return call.move(Permute(order))


def slice_axes(call: Call) -> Value:
    """Imports a slice `start:stop:step` along some axes."""
    starts, ends = (call.shape_numbers(at, name) for at, name in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        raise CannotImport("its starts and ends must be given")
    value = call.value(0)
    rank = value.array.ndim if isinstance(value, _CONSTANT) else call.rank
    axes = call.shape_numbers(3, "axes") or tuple(range(len(starts)))
    steps = call.shape_numbers(4, "steps") or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise CannotImport("its starts, ends, axes and steps differ in length, or a step is 0")
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
            raise CannotImport(f"its {part} of axis {axis} cuts the batch, or leaves no element")
        operations.append(_selection(axis, taken))
    return _moved(call, operations)


def _selection(axis: int, taken: range) -> Operation:
    if taken.step > 0:
        return Slice(axis, taken.start, taken.stop, taken.step)
    return Gather(axis, tuple(taken))


def _moved(call: Call, operations: Sequence[Operation]) -> Value:
    """Adds operations that move values one after the other; the last computes the output."""
    if not operations:
        return identity(call)
    last = len(operations) - 1
    found = call.move(operations[0], tensor=f"{call.output}_part" if last else None)
    for at, operation in enumerate(operations[1:], start=1):
        tensor = f"{call.output}_part" if at < last else None
        found = Real(call.emit(operation, [found.node], tensor=tensor).node, exact=found.exact)
    return found


def split(call: Call) -> list[Value]:
    """Imports a split of one axis into consecutive pieces."""
    axis = call.axis(call.integer("axis", 0))
    size, count = call.builder.shape(call.real())[axis], len(call.node.output)
    sizes = call.shape_numbers(1, "split")
    if sizes is None:
        piece = -(-size // count)
        sizes = (*(piece,) * (count - 1), size - piece * (count - 1))
    if axis == 0 or len(sizes) != count or sum(sizes) != size or min(sizes) < 1:
        raise CannotImport(
            f"it splits axis {axis} into pieces of {list(sizes)[:8]} elements; the {count} pieces "
            f"must add up to {size}, and the batch must stay whole"
        )
    call.quantized()
    ends = np.cumsum(sizes).tolist()
    return [
        call.move(Slice(axis, end - piece, end, 1), tensor=tensor)
        for piece, end, tensor in zip(sizes, ends, call.node.output, strict=True)
    ]


def gather(call: Call) -> Value:
    """Imports a selection along one axis by a constant index, or from a table by codes."""
    index = call.value(1)
    value = call.value(0)
    if isinstance(index, Positions):
        return chosen(call, index)
    if not isinstance(index, Integers):
        raise CannotImport("its index must be constant")
    if isinstance(value, _CONSTANT):
        axis = call.axis(call.integer("axis", 0), value.array.ndim)
        if index.array.size > MOST_SHAPE_NUMBERS:
            raise CannotImport(
                f"its index has {index.array.size} numbers; at most {MOST_SHAPE_NUMBERS} are read"
            )
        call.builder.spend(value.array.size // max(1, value.array.shape[axis]) * index.array.size)
        return apply_to_constant(
            call, lambda array, _: np.take(array, index.array, axis=axis), None
        )
    axis = call.axis(call.integer("axis", 0))
    shape = list(call.builder.shape(call.real()))
    wanted = call.shape_numbers(1, "index") or ()
    if axis == 0 or index.array.ndim > 1 or not wanted:
        raise CannotImport("it selects samples of the batch, or its index is no number or list")
    if not all(-shape[axis] <= at < shape[axis] for at in wanted):
        raise CannotImport(f"its index goes beyond axis {axis}, which has {shape[axis]} elements")
    operations: list[Operation] = [Gather(axis, tuple(at % shape[axis] for at in wanted))]
    if not index.array.ndim:
        del shape[axis]
        operations.append(Reshape(tuple(shape[1:])))
    return _moved(call, operations)


def pad(call: Call) -> Value:
    """Imports padding with a constant."""
    if call.word("mode", "constant") != "constant":
        raise CannotImport(f"its mode is {call.word('mode', '')!r}; only 'constant' is supported")
    amounts = call.shape_numbers(1, "pads")
    value = call.constant_number(2) if call.value(2) is not None else call.number("value", 0.0)
    if amounts is None or value is None or math.isnan(value):
        raise CannotImport("its pads and its value must be constant numbers")
    rank = call.rank
    axes = call.shape_numbers(3, "axes") or tuple(range(rank))
    count = len(axes)
    if len(amounts) != 2 * count:
        raise CannotImport(f"it has {len(amounts)} pads for {count} axes; two per axis are needed")
    places = call.axes(axes, rank)
    pairs = {axis: (amounts[at], amounts[at + count]) for at, axis in enumerate(places)}
    if pairs.get(0, (0, 0)) != (0, 0):
        raise CannotImport("it pads or crops the batch")
    operation = Pad(tuple(pairs.get(axis, (0, 0)) for axis in range(rank)), value)
    if call.pending() is not None:
        return call.move(operation)
    if is_code(value, call.builder.known_scale(call.quantized())):
        return call.move(operation)
    # No code of the input represents the value, so the QuantizeLinear after it decides its code.
    rescaled = call.emit(Rescale(), [call.quantized()], tensor=f"{call.output}_part")
    return call.emit(operation, [rescaled.node])


def max_pool(call: Call) -> Value:
    """Imports a maximum over windows, in which padding never is the maximum."""
    kernel = call.integers("kernel_shape", None)
    if kernel is None or len(kernel) not in (1, 2) or call.rank != len(kernel) + 2:
        raise CannotImport(f"its kernel_shape {kernel} does not fit an input of {call.rank} axes")
    if any(call.node.output[1:]) and call.builder.readers[call.node.output[1]]:
        raise CannotImport("its second output, the indices, must not be read")
    stride = windows_attribute(call, "strides", len(kernel))
    dilation = windows_attribute(call, "dilations", len(kernel))
    padding = margins(call, kernel, stride, dilation)
    ceil_mode = call.flag("ceil_mode", 0)
    if any(before != after for before, after in padding):
        if ceil_mode:
            raise CannotImport("its padding differs before and after; that needs ceil_mode 0")
        operation = MaxPool(kernel, stride, (0,) * len(kernel), dilation, False)
        return _moved(call, [Pad(((0, 0), (0, 0), *padding), -math.inf), operation])
    before = tuple(margin for margin, _ in padding)
    return call.move(MaxPool(kernel, stride, before, dilation, ceil_mode))


def global_max_pool(call: Call) -> Value:
    """Imports a maximum over all axes after the channels."""
    spatial = call.builder.shape(call.real())[2:]
    if len(spatial) not in (1, 2):
        raise CannotImport(
            f"its input has {len(spatial)} axes after the channels; 1 or 2 are supported"
        )
    count = len(spatial)
    return call.move(MaxPool(spatial, (1,) * count, (0,) * count, (1,) * count, False))
