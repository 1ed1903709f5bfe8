"""Weights with a scale for each block of input channels, as integers with a scale for each output.

Such scales cannot be factored out of a sum. Where those of an output channel are whole multiples of
one unit, the multiples go into the integers: `codes * scale = (codes * multiple) * unit`, exactly.
"""

from dataclasses import replace

import numpy as np

from photomask.chip.formats import IntFormat
from photomask.chip.onnx_import.values import CannotImport, Dequantized

MOST_MULTIPLE = 255
_TOLERANCE = 2.0**-22
"""Scales are float32, rounded from multiples of the unit."""


def with_channel_scales(
    codes: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int, size: int
) -> Dequantized:
    """Returns a constant with blocks of scales as one with a scale for each output channel.

    Args:
        codes: int64, [O, I, *kernel], or [I, O] where `axis` is 0.
        scale: positive float32, the shape of `codes` but for `axis`, which has the blocks.
        zero_point: int64, the shape of `scale`.
        axis: of the input channels.
        size: input channels in a block.

    Raises:
        CannotImport: shapes that do not fit, no common unit, or integers of more than 16 bits.
    """
    if axis != 1 and (axis, codes.ndim) != (0, 2):
        raise CannotImport(f"scales for blocks of axis {axis} of the shape {codes.shape}")
    blocks = list(codes.shape)
    blocks[axis] = -(-codes.shape[axis] // size)
    if scale.shape != tuple(blocks) or zero_point.shape != scale.shape or not codes.size:
        raise CannotImport(
            f"scales of shape {scale.shape} for blocks of {size} in the shape {codes.shape}"
        )
    outputs = 1 - axis
    unit, multiple = _units(np.moveaxis(scale.astype(np.float64), outputs, 0))
    spread = np.repeat(np.moveaxis(multiple, 0, outputs), size, axis=axis)
    centred = codes - np.repeat(zero_point, size, axis=axis)[_within(codes, axis)]
    whole = centred * spread[_within(codes, axis)].astype(np.int64)
    format = _format_of(whole)
    if format.bits > 16:
        raise CannotImport(f"scales for blocks that make {format} integers of its codes")
    zeros = np.zeros(len(unit), dtype=np.int64)
    return Dequantized(whole, unit.astype(np.float32), zeros, outputs, format, had_blocks=True)


def in_units_of(weight: Dequantized, unit: np.ndarray) -> Dequantized:
    """Returns a weight that had blocks with a finer scale, so that a bias keeps its integers.

    Args:
        weight: output channels first.
        unit: the scale that the bias has, over that of the layer's input; [] or [O], float64.

    Returns:
        The weight unchanged where its scales are no multiples of the unit, or do not allow it.
    """
    if not weight.had_blocks:
        return weight
    ratio = weight.scale.astype(np.float64) / unit
    multiple = np.rint(ratio)
    if multiple.min() < 1 or np.any(np.abs(ratio / multiple - 1) > 2.0**-20):
        return weight
    spread = multiple.reshape(-1, *(1,) * (weight.codes.ndim - 1))
    if np.abs(weight.codes * spread).max() >= 1 << 15:
        return weight
    whole = weight.codes * spread.astype(np.int64)
    scale = (weight.scale / multiple).astype(np.float32)
    return replace(weight, codes=whole, scale=scale, format=_format_of(whole))


def _format_of(codes: np.ndarray) -> IntFormat:
    largest = max(int(codes.max()), -int(codes.min()) - 1)
    return IntFormat(bits=max(2, largest.bit_length() + 1), signed=True)


def _within(codes: np.ndarray, axis: int) -> tuple[slice, ...]:
    return tuple(slice(codes.shape[axis]) if at == axis else slice(None) for at in range(axis + 1))


def _units(scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest unit of each channel, [O], and the multiples of it, [O, ...]."""
    rows = scale.reshape(len(scale), -1)
    least = rows.min(axis=1, keepdims=True)
    unit, multiple = np.zeros(len(rows)), np.zeros_like(rows)
    for parts in range(1, MOST_MULTIPLE + 1):
        open_rows = np.flatnonzero(unit == 0)
        ratio = rows[open_rows] / (least[open_rows] / parts)
        whole = np.rint(ratio)
        found = np.all(np.abs(ratio / whole - 1) <= _TOLERANCE, axis=1)
        unit[open_rows[found]] = least[open_rows[found], 0] / parts
        multiple[open_rows[found]] = whole[found]
        if unit.all():
            break
    if not unit.all() or multiple.max() > MOST_MULTIPLE:
        raise CannotImport(
            f"scales for blocks that are no multiples, up to {MOST_MULTIPLE}, of one scale for "
            "each output channel"
        )
    return unit, multiple.reshape(scale.shape)
