"""Which codes a quantizer uses: what hardware may leave out."""

import torch

from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.granularity import PerChannel, PerGroup

_PER_CODE = 8  # probes in every step of the grid
_PER_OCTAVE = 64  # probes between a value and its half, for steps that are finer near 0
_OCTAVES = 16


def used_codes(quantizer: Quantizer) -> tuple[int, ...]:
    """Returns the codes that a fitted quantizer uses, ascending.

    A uniform quantizer uses all of `codes`. One that is not uses some of them: `format.bits` is
    what the multiplier must take, `len(used_codes(...))` is how many operands it ever meets.

    Found by quantizing values all over the range, every code's own among them.

    Raises:
        QuantizerError: before `fit`.
    """
    codes = quantizer.codes
    count = codes.high - codes.low
    linear = torch.linspace(codes.low, codes.high, _PER_CODE * count + 1)
    octaves = torch.exp2(-torch.arange(_OCTAVES * _PER_OCTAVE) / _PER_OCTAVE) * codes.magnitude
    position = torch.cat([linear, octaves, -octaves]).to(quantizer.scale.device)
    match quantizer.granularity:
        case PerChannel(axis=axis):
            # The probes lie along another axis than the channels.
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
