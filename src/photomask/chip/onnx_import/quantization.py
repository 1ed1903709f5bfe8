"""QuantizeLinear and DequantizeLinear: where scales and integers come from."""

import numpy as np

from photomask.chip.conversion.builder import Scale
from photomask.chip.formats import IntFormat
from photomask.chip.onnx_import import rounding
from photomask.chip.onnx_import.blocks import with_channel_scales
from photomask.chip.onnx_import.call import Call
from photomask.chip.onnx_import.graph import Rescale
from photomask.chip.onnx_import.lookups import dequantized
from photomask.chip.onnx_import.values import (
    CannotImport,
    Chosen,
    Codes,
    Dequantized,
    Floats,
    Integers,
    Real,
    Value,
)
from photomask.errors import DocumentError

FORMATS = {
    kind: IntFormat(bits=bits, signed=not kind.startswith("U"))
    for bits in (4, 8, 16, 32)
    for kind in (f"INT{bits}", f"UINT{bits}")
}
"""Formats of codes by the name of their element type; 32 bits for biases only."""


def quantize_linear(call: Call) -> Value:
    """Gives what a node computes its scale, or requantizes what has another."""
    value = call.value(0)
    kind = _output_kind(call)
    format, scale, zero_point = _parameters(call, kind)
    if isinstance(value, Floats):
        return _quantize_constant(call, value, kind)
    if scale.ndim:
        raise CannotImport("activations with a scale for each channel")
    if format.bits > 16:
        raise CannotImport(f"activations of {format.bits} bits")
    real = call.real()
    meaning = Scale(float(scale), int(zero_point), format)
    found = call.builder.scale(real.node)
    if found is None:
        call.builder.set_scale(real.node, meaning)
    elif found != meaning:
        if not real.exact:
            raise CannotImport("another QuantizeLinear gives the same values another scale")
        real = call.emit(Rescale(), [real.node], tensor=call.name(0))
        call.builder.set_scale(real.node, meaning)
    return Codes(real.node)


def dequantize_linear(call: Call) -> Value:
    """Says what codes mean."""
    value = call.value(0)
    if isinstance(value, Integers):
        size = call.integer("block_size", 0)
        format, scale, zero_point = _parameters(call, value.kind, may_have_blocks=size > 0)
        if size:
            axis = call.axis(call.integer("axis", 1), value.array.ndim)
            codes = value.array.astype(np.int64)
            return with_channel_scales(codes, scale, zero_point, axis, size)
        axis = _channel_axis(call, scale, value.array.shape)
        codes = value.array.astype(np.int64)
        return Dequantized(codes, scale, zero_point, axis, format)
    if isinstance(value, Chosen):
        format, scale, zero_point = _parameters(call, value.table.kind)
        codes = value.table.array.astype(np.int64)
        return dequantized(call, value, Dequantized(codes, scale, zero_point, None, format))
    if not isinstance(value, Codes):
        raise CannotImport("its input is neither a constant nor from a QuantizeLinear")
    found = call.builder.scale(value.node)
    held = found.format if found is not None else call.builder.input_formats[value.node]
    format, scale, zero_point = _parameters(call, f"{'' if held.signed else 'U'}INT{held.bits}")
    if found is None and not scale.ndim and format.bits <= 16:
        found = Scale(float(scale), int(zero_point), format)
        call.builder.set_scale(value.node, found)
    if scale.ndim or Scale(float(scale), int(zero_point), format) != found:
        raise CannotImport("its scale or zero point is not that of the codes it reads")
    return Real(value.node, exact=True)


def _output_kind(call: Call) -> str:
    """Returns the element type of a QuantizeLinear's output."""
    zero_point = call.value(2)
    if zero_point is None:
        number = call.integer("output_dtype", 0)
        kinds = {3: "INT8", 0: "UINT8", 2: "UINT8", 5: "INT16", 4: "UINT16", 21: "UINT4"}
        return (kinds | {22: "INT4"}).get(number, f"type {number}")
    if not isinstance(zero_point, Integers):
        raise CannotImport("its zero point is no constant integer")
    return zero_point.kind


def _parameters(
    call: Call, kind: str, *, may_have_blocks: bool = False
) -> tuple[IntFormat, np.ndarray, np.ndarray]:
    """Returns format, scale and zero point: scalars, or one for each channel or block."""
    if kind not in FORMATS:
        raise CannotImport(f"codes of type {kind}; known are {', '.join(FORMATS)}")
    format = FORMATS[kind]
    if call.integer("block_size", 0) and not may_have_blocks:
        raise CannotImport("a scale for each block of a channel")
    scale, zero_point = call.value(1), call.value(2)
    where = f"{call.builder.file}: node {call.node.name or call.output!r} ({call.node.op_type})"
    if not isinstance(scale, Floats):
        raise CannotImport("its scale is no constant real number")
    scales = scale.array.astype(np.float32)
    if not np.all(np.isfinite(scales)) or not np.all(scales > 0):
        raise DocumentError(f"{where}: a scale is not positive and finite")
    if (scales.ndim > 1 and not may_have_blocks) or not scales.size:
        raise DocumentError(f"{where}: the scale has the shape {scales.shape}")
    if zero_point is None:
        zero_points = np.zeros(scales.shape, dtype=np.int64)
    elif not isinstance(zero_point, Integers) or zero_point.kind != kind:
        raise DocumentError(f"{where}: the zero point must have the type of the codes, {kind}")
    else:
        zero_points = zero_point.array.astype(np.int64)
    if zero_points.shape != scales.shape and not zero_points.size == scales.size == 1:
        raise DocumentError(
            f"{where}: scales of shape {scales.shape} and zero points of shape {zero_points.shape}"
        )
    if scales.size == 1 and not may_have_blocks:
        return format, scales.reshape(()), zero_points.reshape(())
    return format, scales, zero_points


def _channel_axis(call: Call, scale: np.ndarray, shape: tuple[int, ...]) -> int | None:
    if not scale.ndim:
        return None
    axis = call.axis(call.integer("axis", 1), len(shape))
    if shape[axis] != scale.size:
        raise CannotImport(f"{scale.size} scales for axis {axis} of the shape {shape}")
    return axis


def _quantize_constant(call: Call, value: Floats, kind: str) -> Integers:
    """Computes the codes of a constant: `saturate(round_half_even(x / scale) + zero_point)`."""
    format, scale, zero_point = _parameters(call, kind)
    axis = _channel_axis(call, scale, value.array.shape)
    spread = [-1 if a == axis else 1 for a in range(value.array.ndim)]
    if not np.all(np.isfinite(value.array)):
        raise CannotImport("its constant input is not finite")
    if axis is not None:
        scale, zero_point = scale.reshape(spread), zero_point.reshape(spread)
    return Integers(rounding.quantize_linear(value.array, scale, zero_point, format), kind)
