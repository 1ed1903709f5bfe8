"""Which codes a quantizer uses: what hardware may leave out."""

import torch
from torch import Tensor

from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.granularity import PerChannel, PerGroup
from photomask.errors import QuantizerError

_PER_CODE = 8  # probes in every step of the grid
_PER_OCTAVE = 64  # probes between a value and its half, for steps that are finer near 0
_OCTAVES = 16
_MOST_PROBES = 1 << 22


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


def _for_channels(position: Tensor, channels: int) -> Tensor:
    """Returns every position for every channel or, where that is too much, for one in turn."""
    if position.numel() * channels <= _MOST_PROBES:
        return position[:, None].expand(-1, channels)
    rows = -(-position.numel() // channels)
    return position.repeat(2)[: rows * channels].reshape(rows, channels)


def demand_nearest_codes(quantizer: Quantizer, where: str) -> None:
    """Refuses a quantizer of activations whose codes rescaling would not compute.

    Rescaling returns `clamp(round(x / scale) + zero_point)` over the whole format, so an activation
    must be quantized like that: other levels or roundings are for weights, whose codes are stored.

    Raises:
        QuantizerError: with the first value that gets another code.
    """
    format, zero_point = quantizer.format, quantizer.zero_point
    scale = quantizer.scale.detach()
    nearest = torch.arange(format.low - 2, format.high + 3, device=scale.device)
    # No ties, and far enough from them for float32.
    position = (nearest[:, None] + torch.tensor([-0.4, 0, 0.4], device=scale.device)).flatten()
    if scale.ndim:  # the channels are the last axis
        position = _for_channels(position, len(scale))
    steps = position - zero_point
    with torch.no_grad():
        found = quantizer.quantize(steps * scale)
    expected = position.round().clamp(format.low, format.high)
    wrong = (found != expected).nonzero()
    if len(wrong):
        first = tuple(wrong[0].tolist())
        raise QuantizerError(
            f"{where}: {type(quantizer).__name__} gives {steps[first]:.4g} steps "
            f"the code {found[first]:g}, but rescaling rounds to the nearest code of {format}, "
            f"{expected[first]:g}; quantizers of other levels or roundings are for weights alone"
        )
