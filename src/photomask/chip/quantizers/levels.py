"""Finds the codes that a quantizer uses; hardware may leave out the others."""

import torch
from torch import Tensor

from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.granularity import PerChannel, PerGroup
from photomask.errors import QuantizerError

_PER_CODE = 8  # probes between two neighbouring codes
_PER_OCTAVE = 64  # probes between a value and its half, for steps that are finer near 0
_OCTAVES = 16
_MOST_PROBES = 1 << 22


def used_codes(quantizer: Quantizer) -> tuple[int, ...]:
    """Returns the codes that a fitted quantizer uses, in ascending order.

    A uniform quantizer uses all of `codes`, and a non-uniform one uses some of them. A multiplier
    must accept `format.bits` bits, and meets `len(used_codes(...))` different operands.

    The codes are found by quantizing values across the whole range, including the value of every
    code.

    Raises:
        QuantizerError: the quantizer is not fitted.
    """
    codes = quantizer.codes
    count = codes.high - codes.low
    linear = torch.linspace(codes.low, codes.high, _PER_CODE * count + 1)
    octaves = torch.exp2(-torch.arange(_OCTAVES * _PER_OCTAVE) / _PER_OCTAVE) * codes.magnitude
    position = torch.cat([linear, octaves, -octaves]).to(quantizer.scale.device)
    match quantizer.granularity:
        case PerChannel(axis=axis):
            # The probes lie along an axis other than that of the channels.
            shape = [1] * (axis + 2 if axis >= 0 else 1 - axis)
            shape[-1 if axis >= 0 else 0] = -1
            position = position.reshape(shape)
            spread = list(position.shape)
            spread[axis] = quantizer.scale.shape[0]
            position = position.expand(spread)
        case PerGroup(size=size):
            outputs, groups = quantizer.scale.shape
            position = position.expand(outputs, groups * size, -1)
    with torch.no_grad():
        zero_point, scale = quantizer.zero_point_for(position), quantizer.scale_for(position)
        found = quantizer.quantize((position - zero_point) * scale)
    return tuple(found.unique().long().tolist())


def _for_channels(position: Tensor, channels: int) -> Tensor:
    """Returns positions for channels, [rows, channels].

    Every channel gets every position where that is at most `_MOST_PROBES` values. Otherwise each
    position is given to one channel, and the channels take turns.
    """
    if position.numel() * channels <= _MOST_PROBES:
        return position[:, None].expand(-1, channels)
    rows = -(-position.numel() // channels)
    return position.repeat(2)[: rows * channels].reshape(rows, channels)


def demand_nearest_codes(quantizer: Quantizer, where: str) -> None:
    """Refuses a quantizer of activations whose codes requantization would not compute.

    Requantization returns `clamp(round(x / scale) + zero_point)` over the whole format, so the
    quantizer of an activation must do the same. Quantizers with other levels or another rounding
    are for weights, whose codes are stored.

    Args:
        quantizer: the fitted quantizer of an activation.
        where: the place of the quantizer, for the message.

    Raises:
        QuantizerError: a value gets another code; the message names the first such value.
    """
    format, zero_point = quantizer.format, quantizer.zero_point
    scale = quantizer.scale.detach()
    nearest = torch.arange(format.low - 2, format.high + 3, device=scale.device)
    # The positions keep a distance from ties that float32 resolves.
    position = (nearest[:, None] + torch.tensor([-0.4, 0, 0.4], device=scale.device)).flatten()
    if scale.ndim:  # an activation with several scales has its channels along the last axis
        position = _for_channels(position, len(scale))
    steps = position - zero_point
    with torch.no_grad():
        found = quantizer.quantize(steps * scale)
    expected = position.round().clamp(format.low, format.high)
    wrong = (found != expected).nonzero()
    if len(wrong):
        first = tuple(wrong[0].tolist())
        raise QuantizerError(
            f"{where}: {type(quantizer).__name__} gives the value {steps[first]:.4g} * scale the "
            f"code {found[first]:g}, but requantization rounds it to the nearest code of {format}, "
            f"which is {expected[first]:g}; use a quantizer with other levels or another rounding "
            "for weights only"
        )
