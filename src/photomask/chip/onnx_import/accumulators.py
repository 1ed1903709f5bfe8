"""Makes the sums of layers fit the target's accumulator by coarser units of some channels.

ONNX Runtime's tool gives an almost dead channel the smallest weight scale with which its bias still
fits 32 bits, so that bias and products together need 33 bits.
"""

import numpy as np

from photomask.chip.conversion.builder import Conversion, Scale
from photomask.chip.formats import Interval, IntFormat
from photomask.chip.graph import Node
from photomask.chip.onnx_import.values import Dequantized
from photomask.chip.operators.weights import channel_sums
from photomask.chip.units import accumulator_unit

LARGEST_ERROR = 0.25
"""The largest error that a coarser unit may cause, in codes of the layer's output."""


def with_fitting_sums(conversion: Conversion, node: Node, weight: Dequantized) -> Dequantized:
    """Returns a layer's weights, with a coarser unit for channels that need too many bits.

    The unit `u` of such a channel becomes `2**k u` with the smallest `k` that fits:

        weight' = round_half_even(weight / 2**k)

    A channel is changed only if that provably changes its results by at most a quarter of a code,
    or if the results saturate for every input before and after. Other channels stay unchanged, and
    the conversion then refuses them.

    Args:
        conversion: the conversion, with the edges before the node.
        node: a convolution or a linear layer.
        weight: the weight of the file, with the output channels first.
    """
    x, y = conversion.scale_of(node.inputs[0]), conversion.scale_of(node.name)
    codes = conversion.edges[node.inputs[0]].interval
    bias = conversion.prepared.constants_of(node)["bias"].detach().double().numpy()
    centred = weight.centred()
    channels = len(centred)
    scale = np.broadcast_to(weight.scale.astype(np.float64), channels)
    unit = accumulator_unit(node.operation, [np.array(x.scale)], scale)
    rows = centred.reshape(channels, -1)
    too_wide = ~_fits(rows, bias / unit, codes, x.zero_point, conversion)
    shifts = np.zeros(channels, dtype=np.int64)
    for channel in np.flatnonzero(too_wide):
        row, units = rows[channel : channel + 1], bias[channel : channel + 1] / unit[channel]
        shift = _smallest_shift(row, units, codes, x.zero_point, conversion)
        if shift and _is_harmless(node, row, units, shift, unit[channel], codes, x, y):
            shifts[channel] = shift
    if not shifts.any():
        return weight
    spread = shifts.reshape(-1, *(1,) * (centred.ndim - 1))
    scale = np.ldexp(np.broadcast_to(weight.scale, channels), shifts).astype(np.float32)
    zero_point = np.broadcast_to(weight.zero_point, channels)
    coarse = np.rint(np.ldexp(centred.astype(np.float64), -spread)).astype(np.int64)
    codes = coarse + zero_point.reshape(spread.shape)
    return Dequantized(codes, scale, zero_point, 0, weight.format)


def _fits(
    rows: np.ndarray, units: np.ndarray, codes: Interval, zero_point: int, conversion: Conversion
) -> np.ndarray:
    """Tells for each channel whether its bias and its sums fit the target."""
    target = conversion.target
    rounded = np.array([int(number) for number in np.rint(units)], dtype=object)
    bias = rounded - zero_point * rows.sum(axis=1).astype(object)
    lows, highs = channel_sums(rows, bias, codes)
    sums = IntFormat(bits=target.accumulator_bits, signed=True)
    held = IntFormat(bits=target.bias_bits, signed=True)
    fits = (lows >= sums.low) & (highs <= sums.high) & (bias >= held.low) & (bias <= held.high)
    return fits.astype(bool)


def _smallest_shift(
    row: np.ndarray, units: np.ndarray, codes: Interval, zero_point: int, conversion: Conversion
) -> int:
    """Returns the number of bits by which a channel's unit must grow; 0 if none is enough."""
    for shift in range(1, 64):
        coarse = np.rint(np.ldexp(row.astype(np.float64), -shift)).astype(np.int64)
        if _fits(coarse, np.ldexp(units, -shift), codes, zero_point, conversion)[0]:
            return shift
    return 0


def _is_harmless(
    node: Node,
    row: np.ndarray,
    units: np.ndarray,
    shift: int,
    unit: float,
    codes: Interval,
    x: Scale,
    y: Scale,
) -> bool:
    """Tells whether a coarser unit changes no result of a channel by more than is allowed."""
    coarse = np.rint(np.ldexp(row.astype(np.float64), -shift)) * 2.0**shift
    reach = max(abs(codes.low - x.zero_point), abs(codes.high - x.zero_point))
    error = (np.abs(row - coarse).sum() * reach + 2.0 ** (shift - 1)) * unit / y.scale
    if error <= LARGEST_ERROR:
        return True
    clamp = node.clamp
    low = y.format.low if clamp is None else y.code(clamp.low)
    high = y.format.high if clamp is None else y.code(clamp.high)
    swing = np.abs(row).sum() * reach
    ends = (units[0] + np.array([-swing, swing])) * unit / y.scale + y.zero_point
    return bool(ends[1] + error <= low - 1 or ends[0] - error >= high + 1)
