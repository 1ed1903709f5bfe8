"""Rounds PyTorch tensors to an MX format (fake quantization)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.microscaling.elements import BLOCK, SCALE_BIAS, ElementFormat
from photomask.errors import DataError


def round_to_blocks(x: Tensor, format: ElementFormat, axis: int) -> Tensor:
    """Returns `decode(encode(x))` along an axis, bit for bit, in the dtype of `x`.

    Args:
        x: float32 or float64 values; a block with NaN or infinity becomes NaN.
        format: the format of the elements.
        axis: the axis of the blocks, along which products will be summed.

    Raises:
        DataError: the dtype is not float32 or float64, or the axis does not exist.
    """
    if x.dtype not in (torch.float32, torch.float64) or not -x.dim() <= axis < x.dim():
        raise DataError(
            f"MX blocks need float32 or float64 values with an axis {axis}, found {x.dtype} of "
            f"shape {list(x.shape)}"
        )
    moved = x.detach().movedim(axis, -1)
    length = moved.shape[-1]
    padded = F.pad(moved, (0, -length % BLOCK)).double()
    blocks = padded.reshape(*moved.shape[:-1], -1, BLOCK)
    broken = ~blocks.isfinite().all(dim=-1, keepdim=True)
    blocks = torch.where(broken, 0.0, blocks)
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    exponent = _floor_log2(largest) - format.largest_exponent
    exponent = torch.where(largest > 0, exponent, -SCALE_BIAS).clamp(-SCALE_BIAS, SCALE_BIAS)
    unit = exponent - format.mantissa_bits
    top = 127 / 64
    if not format.is_integer:
        unit = unit + (_floor_log2(blocks) - exponent).clamp(min=1 - format.bias)
        top = float(format.values[format.largest_code])
    # float64 holds every power of two that occurs, and a division by one is exact.
    step = torch.ldexp(torch.ones_like(blocks), unit)
    limit = top * torch.ldexp(torch.ones_like(largest), exponent)
    value = ((blocks / step).round() * step).clamp(-limit, limit)
    value = torch.where(broken, torch.nan, value).to(x.dtype)
    return value.reshape(*moved.shape[:-1], -1)[..., :length].movedim(-1, axis)


def _floor_log2(x: Tensor) -> Tensor:
    """Returns `floor(log2 |x|)` of values that are not 0."""
    return torch.frexp(x)[1] - 1
