"""Imports QuantizeLinear and DequantizeLinear, which hold the scales and integers of a file."""

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
"""The formats of codes by the name of their element type; 32 bits are for biases only."""


def quantize_linear(call: Call) -> Value:
    """Imports a QuantizeLinear: it sets a node's scale, or rescales values with another scale."""
    value = call.value(0)
    kind = _output_kind(call)
    format, scale, zero_point = _parameters(call, kind)
    if isinstance(value, Floats):
        return _quantize_constant(call, value, kind)
    if scale.ndim:
        raise CannotImport("it gives an activation several scales; only weights may have several")
    if format.bits > 16:
        raise CannotImport(f"it gives an activation {format.bits} bits; at most 16 are supported")
    real = call.real()
    meaning = Scale(float(scale), int(zero_point), format)
    found = call.builder.scale(real.node)
    if found is None:
        call.builder.set_scale(real.node, meaning)
    elif found != meaning:
        if not real.exact:
            raise CannotImport("another QuantizeLinear gives the same values a different scale")
        real = call.emit(Rescale(), [real.node], tensor=call.name(0))
        call.builder.set_scale(real.node, meaning)
    return Codes(real.node)


def dequantize_linear(call: Call) -> Value:
    """Imports a DequantizeLinear, which states the scale of codes."""
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
        raise CannotImport("its input must be a constant or the output of a QuantizeLinear")
    found = call.builder.scale(value.node)
    held = found.format if found is not None else call.builder.input_formats[value.node]
    format, scale, zero_point = _parameters(call, f"{'' if held.signed else 'U'}INT{held.bits}")
    if found is None and not scale.ndim and format.bits <= 16:
        found = Scale(float(scale), int(zero_point), format)
        call.builder.set_scale(value.node, found)
    if scale.ndim or Scale(float(scale), int(zero_point), format) != found:
        raise CannotImport("its scale or zero point differs from that of the codes that it reads")
    return Real(value.node, exact=True)


def _output_kind(call: Call) -> str:
    """Returns the element type of a QuantizeLinear's output."""
    zero_point = call.value(2)
    if zero_point is None:
        number = call.integer("output_dtype", 0)
        kinds = {3: "INT8", 0: "UINT8", 2: "UINT8", 5: "INT16", 4: "UINT16", 21: "UINT4"}
        return (kinds | {22: "INT4"}).get(number, f"type {number}")
    if not isinstance(zero_point, Integers):
        raise CannotImport("its zero point must be a constant integer")
    return zero_point.kind


def _parameters(
    call: Call, kind: str, *, may_have_blocks: bool = False
) -> tuple[IntFormat, np.ndarray, np.ndarray]:
    """Returns the format, the scale and the zero point, the latter two per tensor or several."""
    if kind not in FORMATS:
        raise CannotImport(f"its codes have the type {kind}; supported are {', '.join(FORMATS)}")
    format = FORMATS[kind]
    if call.integer("block_size", 0) and not may_have_blocks:
        raise CannotImport("it has scales per block, which are supported for constant codes only")
    scale, zero_point = call.value(1), call.value(2)
    where = f"{call.builder.file}: node {call.node.name or call.output!r} ({call.node.op_type})"
    if not isinstance(scale, Floats):
        raise CannotImport("its scale must be a constant floating-point number")
    scales = scale.array.astype(np.float32)
    if not np.all(np.isfinite(scales)) or not np.all(scales > 0):
        raise DocumentError(f"{where}: every scale must be positive and finite")
    if (scales.ndim > 1 and not may_have_blocks) or not scales.size:
        raise DocumentError(
            f"{where}: the scale has the shape {scales.shape}; expected one number or a list"
        )
    if zero_point is None:
        zero_points = np.zeros(scales.shape, dtype=np.int64)
    elif not isinstance(zero_point, Integers) or zero_point.kind != kind:
        raise DocumentError(f"{where}: the zero point must have the type of the codes, {kind}")
    else:
        zero_points = zero_point.array.astype(np.int64)
    if zero_points.shape != scales.shape and not zero_points.size == scales.size == 1:
        raise DocumentError(
            f"{where}: the scales have the shape {scales.shape}, but the zero points "
            f"{zero_points.shape}"
        )
    if scales.size == 1 and not may_have_blocks:
        return format, scales.reshape(()), zero_points.reshape(())
    return format, scales, zero_points


def _channel_axis(call: Call, scale: np.ndarray, shape: tuple[int, ...]) -> int | None:
    if not scale.ndim:
        return None
    axis = call.axis(call.integer("axis", 1), len(shape))
    if shape[axis] != scale.size:
        raise CannotImport(f"its {scale.size} scales do not fit axis {axis} of the shape {shape}")
    return axis


def _quantize_constant(call: Call, value: Floats, kind: str) -> Integers:
    """Returns the codes of a constant, `saturate(round_half_even(x / scale) + zero_point)`."""
    format, scale, zero_point = _parameters(call, kind)
    axis = _channel_axis(call, scale, value.array.shape)
    spread = [-1 if a == axis else 1 for a in range(value.array.ndim)]
    if not np.all(np.isfinite(value.array)):
        raise CannotImport("its constant input must be finite, but holds NaN or infinity")
    if axis is not None:
        scale, zero_point = scale.reshape(spread), zero_point.reshape(spread)
    return Integers(rounding.quantize_linear(value.array, scale, zero_point, format), kind)
