"""Converts weights with scales per block of input channels to scales per output channel.

A scale per block cannot be factored out of a sum. Where the scales of an output channel are
multiples of one unit, the integers are multiplied: `codes * scale = (codes * multiple) * unit`,
exactly.
"""

from dataclasses import replace

import numpy as np

from photomask.chip.formats import IntFormat
from photomask.chip.onnx_import.values import CannotImport, Dequantized

MOST_MULTIPLE = 255
_TOLERANCE = 2.0**-22
"""The tolerance of a ratio of scales, which are multiples of the unit rounded to float32."""


def with_channel_scales(
    codes: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int, size: int
) -> Dequantized:
    """Returns a constant with a scale per output channel for one with scales per block.

    Args:
        codes: int64, [O, I, *kernel], or [I, O] where `axis` is 0.
        scale: positive float32, in the shape of `codes` except for `axis`, which has the blocks.
        zero_point: int64, in the shape of `scale`.
        axis: the axis of the input channels.
        size: the number of input channels in a block.

    Raises:
        CannotImport: the shapes do not fit, the scales have no common unit, or the integers would
            need more than 16 bits.
    """
    if axis != 1 and (axis, codes.ndim) != (0, 2):
        raise CannotImport(
            f"it has scales per block along axis {axis} of a constant of shape {codes.shape}, "
            "which are supported along the input channels of a weight only"
        )
    blocks = list(codes.shape)
    blocks[axis] = -(-codes.shape[axis] // size)
    if scale.shape != tuple(blocks) or zero_point.shape != scale.shape or not codes.size:
        raise CannotImport(
            f"its scales of shape {scale.shape} do not fit blocks of {size} in a constant of shape "
            f"{codes.shape}"
        )
    outputs = 1 - axis
    unit, multiple = _units(np.moveaxis(scale.astype(np.float64), outputs, 0))
    spread = np.repeat(np.moveaxis(multiple, 0, outputs), size, axis=axis)
    centred = codes - np.repeat(zero_point, size, axis=axis)[_within(codes, axis)]
    whole = centred * spread[_within(codes, axis)].astype(np.int64)
    format = _format_of(whole)
    if format.bits > 16:
        raise CannotImport(
            f"its scales per block turn its codes into {format} integers; at most 16 bits are "
            "supported"
        )
    zeros = np.zeros(len(unit), dtype=np.int64)
    return Dequantized(whole, unit.astype(np.float32), zeros, outputs, format, had_blocks=True)


def in_units_of(weight: Dequantized, unit: np.ndarray) -> Dequantized:
    """Returns a weight that had blocks, with the unit of the bias, so that the bias stays exact.

    Args:
        weight: the weight, with the output channels first.
        unit: the scale of the bias divided by that of the layer's input, [] or [O], float64.

    Returns:
        The weight with the finer unit. It is unchanged where it had no blocks, where its scales are
        no multiples of the unit, or where the integers would not fit 16 bits.
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
    """Returns the largest unit of each channel, [O], and the multiples of it, [O, ...].

    Raises:
        CannotImport: the scales of a channel are no multiples of one unit.
    """
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
            f"its scales per block are no multiples, up to {MOST_MULTIPLE}, of one scale for each "
            "output channel"
        )
    return unit, multiple.reshape(scale.shape)
