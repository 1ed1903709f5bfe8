"""Imports operators that compute products, sums and averages."""

import math

import numpy as np
import torch

from photomask.chip.conversion.builder import Scale
from photomask.chip.graph import Node
from photomask.chip.graph.operations import (
    Add,
    AveragePool,
    Concatenate,
    Convolution,
    Linear,
    Matmul,
    Mean,
    Multiply,
    Operation,
    Pad,
    Softmax,
)
from photomask.chip.onnx_import.blocks import in_units_of
from photomask.chip.onnx_import.call import Call
from photomask.chip.onnx_import.constants import join_constants
from photomask.chip.onnx_import.lookups import moved_positions
from photomask.chip.onnx_import.pointwise import affine, quotient
from photomask.chip.onnx_import.shapes import output_shape
from photomask.chip.onnx_import.values import (
    CannotImport,
    Dequantized,
    Floats,
    Integers,
    Real,
    Value,
)
from photomask.chip.units import accumulator_unit

MOST_UNEVEN_WINDOWS = 1 << 18
"""The most windows of a pooling whose windows may hold different numbers of elements."""


def convolution(call: Call) -> Value:
    """Imports a convolution with constant weights [O, I/groups, *kernel]."""
    weight = _weight(call, 1)
    spatial = weight.codes.ndim - 2
    if spatial not in (1, 2) or call.rank != spatial + 2:
        raise CannotImport(
            f"its weight of shape {weight.codes.shape} must have 1 or 2 spatial axes and as many "
            f"axes as its input, which has {call.rank}"
        )
    kernel = call.integers("kernel_shape", None) or weight.codes.shape[2:]
    if tuple(kernel) != weight.codes.shape[2:]:
        raise CannotImport(
            f"its kernel_shape {list(kernel)} is not that of its weight {weight.codes.shape}"
        )
    stride = windows_attribute(call, "strides", spatial)
    dilation = windows_attribute(call, "dilations", spatial)
    operation = Convolution(
        stride=stride,
        padding=margins(call, kernel, stride, dilation),
        dilation=dilation,
        groups=call.integer("group", 1),
    )
    if min(*stride, *dilation, operation.groups) < 1:
        raise CannotImport("its strides, dilations and groups must be at least 1")
    return _weighted(call, operation, weight, call.value(2))


def gemm(call: Call) -> Value:
    """Imports `x @ w + b` with constant weights."""
    if call.number("alpha", 1.0) != 1 or call.number("beta", 1.0) != 1:
        raise CannotImport("its alpha and beta must be 1")
    if call.flag("transA", 0):
        raise CannotImport("its transA must be 0, because the batch must be the first axis")
    weight = _weight(call, 1)
    if weight.codes.ndim != 2 or call.rank != 2:
        raise CannotImport(
            f"its weight of shape {weight.codes.shape} and its input, which has {call.rank} axes, "
            "must both have 2 axes"
        )
    if not call.flag("transB", 0):
        weight = weight.transposed((1, 0))
    return _weighted(call, Linear(), weight, call.value(2))


def matmul(call: Call) -> Value:
    """Imports a product with constant weights [I, O], or of two activations."""
    weight = call.value(1)
    if isinstance(weight, Dequantized) and weight.codes.ndim == 2:
        return _weighted(call, Linear(), weight.transposed((1, 0)), None)
    rank = call.rank
    return call.emit(Matmul(), [call.operand(0, rank), call.operand(1, rank)])


def _weight(call: Call, position: int) -> Dequantized:
    value = call.value(position)
    if not isinstance(value, Dequantized):
        raise CannotImport(f"its weight {call.name(position)!r} must be a quantized constant")
    return value


def _weighted(
    call: Call, operation: Convolution | Linear, weight: Dequantized, bias: Value | None
) -> Real:
    """Adds a layer whose weights have the output channels first."""
    x = call.quantized()
    if weight.axis not in (None, 0):
        raise CannotImport("its weight has scales per input channel; use scales per output channel")
    if weight.format.bits > 16:
        raise CannotImport(f"its weight has {weight.format.bits} bits; at most 16 are supported")
    if not weight.codes.size:
        raise CannotImport("its weight is empty")
    channels = len(weight.codes)
    weight = _in_units_of_bias(call, weight, bias, x)
    unit = _unit(operation, call.builder.known_scale(x), weight)
    real = np.zeros(channels) if bias is None else _bias(bias, unit, channels)
    constants = {"weight": np.ascontiguousarray(weight.real()), "bias": real}
    found = call.emit(operation, [x], constants)
    call.builder.weights[found.node] = weight
    if bias is not None:
        call.builder.biased.add(found.node)
    return found


def _in_units_of_bias(call: Call, weight: Dequantized, bias: Value | None, x: str) -> Dequantized:
    if not isinstance(bias, Dequantized) or bias.scale.size not in (1, len(weight.codes)):
        return weight
    return in_units_of(weight, bias.scale.astype(np.float64) / call.builder.known_scale(x).scale)


def _unit(operation: Operation, scale: Scale, weight: Dequantized) -> np.ndarray:
    """Returns the real value of one unit of a layer's accumulator."""
    return accumulator_unit(operation, [np.array(scale.scale)], weight.scale.astype(np.float64))


def _bias(bias: Value, unit: np.ndarray, channels: int) -> np.ndarray:
    """Returns real biases which, divided by the accumulator's unit, are the file's integers."""
    if isinstance(bias, Floats):
        real = bias.array.astype(np.float64)
    elif isinstance(bias, Dequantized):
        real = bias.real()
        # The scale of the file is the unit rounded to float32.
        close = np.abs(bias.scale.astype(np.float64) / unit - 1) < 2**-20
        if np.all(close):
            real = bias.centred() * unit
    else:
        raise CannotImport("its bias must be constant")
    if not np.all(np.isfinite(real)):
        raise CannotImport("its bias must be finite, but holds NaN or infinity")
    if real.size not in (1, channels) or (real.ndim and real.shape[-1] != real.size):
        raise CannotImport(f"its bias of shape {real.shape} does not fit {channels} channels")
    return np.array(np.broadcast_to(real.reshape(-1), (channels,)))


def add(call: Call) -> Value:
    """Imports a sum of activations or of an activation and a constant, or the bias of a layer."""
    return moved_positions(call, 1) or _sum(call, (1, 1))


def subtract(call: Call) -> Value:
    """Imports a difference of activations, or of an activation and a constant."""
    return moved_positions(call, -1) or _sum(call, (1, -1))


def _sum(call: Call, signs: tuple[int, int]) -> Value:
    for position, other in ((0, 1), (1, 0)):
        node, constant = call.pending(position), call.value(other)
        if node is not None and isinstance(node.operation, Linear) and signs == (1, 1):
            return _added_bias(call, node, constant)
        number = call.constant_number(other, call.rank) if isinstance(constant, Floats) else None
        if number is not None:
            return affine(call, position, signs[position], number * signs[other])
    rank = _joint_rank(call)
    return call.emit(Add(signs=signs), [call.operand(0, rank), call.operand(1, rank)])


def _joint_rank(call: Call) -> int:
    """Returns the number of axes of the result of two operands that broadcast."""
    ranks = [len(call.builder.shape(v)) for v in call.values if isinstance(v, Real)]
    return max(ranks, default=0)


def _added_bias(call: Call, node: Node, bias: Value | None) -> Real:
    """Makes the constant that is added to a matrix product the bias of a linear layer."""
    if not isinstance(bias, Floats | Dequantized) or node.clamp or node.name in call.builder.biased:
        raise CannotImport(
            "it adds to a product before a QuantizeLinear; only one constant bias may be added "
            "there"
        )
    weight = _in_units_of_bias(call, call.builder.weights[node.name], bias, node.inputs[0])
    shape = bias.array.shape if isinstance(bias, Floats) else bias.codes.shape
    if len(shape) > len(node.shape):
        raise CannotImport(f"its bias of shape {shape} adds axes before the batch")
    scale = call.builder.known_scale(node.inputs[0])
    real = _bias(bias, _unit(node.operation, scale, weight), len(weight.codes))
    call.builder.constants[node.constants["bias"]] = torch.from_numpy(real)
    found = call.builder.replace(node.name, call.output)
    call.builder.weights[found.node] = weight
    call.builder.biased.add(found.node)
    return found


def multiply(call: Call) -> Value:
    """Imports a product of activations, or of an activation and a constant."""
    for position, other in ((0, 1), (1, 0)):
        if isinstance(call.value(other), Floats):
            number = call.constant_number(other, call.rank)
            if number is not None:
                return _scaled(call, position, number) or affine(call, position, number, 0.0)
    rank = _joint_rank(call)
    return call.emit(Multiply(), [call.operand(0, rank), call.operand(1, rank)])


def divide(call: Call) -> Value:
    """Imports a quotient by one constant number."""
    number = call.constant_number(1, call.rank)
    if number is None:
        raise CannotImport("its divisor must be one constant number")
    scaled = _scaled(call, 0, 1 / number) if number else None
    return scaled or quotient(call, number)


def _scaled(call: Call, position: int, factor: float) -> Real | None:
    """Makes a factor part of the matrix product before it; returns None where there is none."""
    node = call.pending(position)
    if node is None or not isinstance(node.operation, Matmul) or node.clamp or factor <= 0:
        return None
    operation = Matmul(node.operation.factor * factor)
    if not math.isfinite(operation.factor) or not operation.factor:
        raise CannotImport(f"it scales a product by {factor}, which must be finite and above 0")
    return call.builder.replace(node.name, call.output, operation=operation)


def concatenate(call: Call) -> Value:
    """Imports a concatenation; inputs of equal scale need no QuantizeLinear after it."""
    if call.values and all(isinstance(value, Integers) for value in call.values):
        return join_constants(call)
    rank = call.rank
    names = [call.operand(position, rank) for position in range(len(call.values))]
    axis = call.axis(call.integer("axis", 1), rank)
    if axis == 0:
        raise CannotImport("it concatenates along the batch, which must stay as it is")
    found = call.emit(Concatenate(axis=axis), names)
    scales = [call.builder.scale(name) for name in names]
    if (
        scales[0] is not None
        and all(scale == scales[0] for scale in scales)
        and not call.builder.is_quantized_next(call.output)
    ):
        call.builder.set_scale(found.node, scales[0])
        return Real(found.node, exact=True)
    return found


def average_pool(call: Call) -> Value:
    """Imports an average over windows."""
    kernel = call.integers("kernel_shape", None)
    if kernel is None or len(kernel) not in (1, 2) or call.rank != len(kernel) + 2:
        raise CannotImport(f"its kernel_shape {kernel} does not fit an input of {call.rank} axes")
    stride = windows_attribute(call, "strides", len(kernel))
    if any(d != 1 for d in windows_attribute(call, "dilations", len(kernel))):
        raise CannotImport("its dilations must be 1")
    ceil_mode, counted = call.flag("ceil_mode", 0), call.flag("count_include_pad", 0)
    padding = margins(call, kernel, stride, (1,) * len(kernel))
    x = call.quantized()
    if any(before != after for before, after in padding):
        if ceil_mode:
            raise CannotImport("its padding differs before and after; that needs ceil_mode 0")
        if counted:
            tensor = f"{call.output}_padded"
            x = call.emit(Pad(((0, 0), (0, 0), *padding), 0.0), [x], tensor=tensor).node
            padding = ((0, 0),) * len(kernel)
        else:
            ceil_mode = _reaches_beyond(call, kernel, stride, padding)
    before = tuple(margin for margin, _ in padding)
    operation = AveragePool(kernel, stride, before, ceil_mode, counted, None)
    found = call.emit(operation, [x])
    windows = math.prod(call.builder.shape(found)[2:])
    if (any(before) or ceil_mode) and windows > MOST_UNEVEN_WINDOWS:
        raise CannotImport(
            f"it has {windows} windows that may differ in size; at most {MOST_UNEVEN_WINDOWS} are "
            "supported"
        )
    if any(before) or ceil_mode:
        call.builder.spend(windows)
    return found


def _reaches_beyond(
    call: Call,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
) -> bool:
    """Returns the `ceil_mode` with which equal padding on both sides gives the same windows.

    Windows that do not count their padding are the same if they start at the same positions.
    """
    spatial, before = call.builder.shape(call.real())[2:], tuple(front for front, _ in padding)
    wanted = [
        (n + sum(pair) - k) // s + 1
        for n, pair, k, s in zip(spatial, padding, kernel, stride, strict=True)
    ]
    for ceil_mode in (False, True):
        operation = AveragePool(kernel, stride, before, ceil_mode, False, None)
        if list(output_shape(operation, [(1, 1, *spatial)], {})[2:]) == wanted:
            return ceil_mode
    raise CannotImport(
        "its padding differs before and after, and no equal padding gives the same windows"
    )


def global_average_pool(call: Call) -> Value:
    """Imports a mean over all axes after the channels."""
    axes = tuple(range(2, call.rank))
    if not axes:
        raise CannotImport("its input must have an axis after the channels")
    return call.emit(Mean(axes=axes, keep_axes=True), [call.quantized()])


def reduce_mean(call: Call) -> Value:
    """Imports a mean over axes."""
    return _reduce(call, divide=True)


def reduce_sum(call: Call) -> Value:
    """Imports a sum over axes."""
    return _reduce(call, divide=False)


def _reduce(call: Call, divide: bool) -> Value:
    rank = call.rank
    axes = call.shape_numbers(1, "axes")
    if not axes:
        raise CannotImport("its axes must be given")
    found = tuple(sorted(call.axes(axes, rank)))
    if 0 in found:
        raise CannotImport("its axes must not include the batch, axis 0")
    keep = call.flag("keepdims", 1)
    return call.emit(Mean(axes=found, keep_axes=keep, divide=divide), [call.quantized()])


def softmax(call: Call) -> Value:
    """Imports a softmax over the last axis."""
    # Before operator set 13, the default is axis 1, and the softmax covers all axes from it on.
    axis = call.axis(call.integer("axis", -1 if call.opset >= 13 else 1))
    if axis != call.rank - 1:
        raise CannotImport(
            f"it normalizes along axis {axis} of {call.rank} axes; only the last is supported"
        )
    return call.emit(Softmax(), [call.quantized()])


def windows_attribute(call: Call, name: str, count: int) -> tuple[int, ...]:
    """Returns an attribute with one number for each spatial axis."""
    found = call.integers(name, None) or (1,) * count
    if len(found) != count or min(found) < 1:
        raise CannotImport(f"its {name} {list(found)[:8]} must be {count} numbers of at least 1")
    return found


def margins(
    call: Call, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Returns the padding before and after each spatial axis."""
    mode, count = call.word("auto_pad", "NOTSET"), len(kernel)
    if mode in ("NOTSET", ""):
        pads = call.integers("pads", None) or (0,) * (2 * count)
        if len(pads) != 2 * count or min(pads) < 0:
            raise CannotImport(
                f"its pads {list(pads)[:8]} must be {2 * count} numbers of at least 0"
            )
        return tuple(zip(pads[:count], pads[count:], strict=True))
    if mode == "VALID":
        return ((0, 0),) * count
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise CannotImport(
            f"its auto_pad is {mode!r}; expected NOTSET, VALID, SAME_UPPER or SAME_LOWER"
        )
    found = []
    for size, k, s, d in zip(
        call.builder.shape(call.real())[2:], kernel, stride, dilation, strict=True
    ):
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return tuple(found)
