"""The shared parts of the Triton kernels: block sizes, and the softmax over a range of keys.

The softmax is computed online, in float32 and with base 2.

Source: Milakov and Gimelshein 2018, arXiv:1805.02867; Dao 2023, arXiv:2307.08691.
"""

# Pyright reads the body of a kernel as Python, which it is not.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class Blocks:
    """The block sizes of a program: queries and keys at once, warps, and pipeline stages."""

    rows: int
    keys: int
    warps: int
    stages: int


class Heads(NamedTuple):
    """A tensor [B, heads, rows, D] and its strides, as a kernel takes them."""

    pointer: Tensor
    prompt: int
    head: int
    row: int

    @classmethod
    def of(cls, tensor: Tensor) -> Heads:
        """Returns a tensor with its strides. The last stride must be 1."""
        return cls(tensor, *tensor.stride()[:3])


def choose_blocks(block: int, dtype: torch.dtype, tile_rows: int, shared_bytes: int) -> Blocks:
    """Returns block sizes for a head size, so that the operands fit the shared memory.

    Args:
        block: the head size, rounded up to a power of two.
        dtype: the dtype of query, key and value.
        tile_rows: the number of queries of a tile of the schedule.
        shared_bytes: the shared memory that a program may use, in bytes.
    """
    if dtype == torch.float32:  # products outside the tensor cores are faster with small blocks
        return Blocks(rows=min(32 if block <= 128 else 16, tile_rows), keys=16, warps=8, stages=1)
    rows, keys = (128, 64) if block <= 128 else (64, 32)
    rows = min(rows, tile_rows)
    left = shared_bytes - rows * block * dtype.itemsize
    stages = left // (2 * keys * block * dtype.itemsize)
    return Blocks(rows, keys, warps=rows // 16, stages=min(max(stages, 1), 3))


def count_shared_bytes(device: torch.device) -> int:
    """Returns the shared memory that a program may use, in bytes."""
    if device.type != "cuda":
        return 1 << 16  # Triton's interpreter
    properties = torch.cuda.get_device_properties(device)
    usual = properties.shared_memory_per_block
    return getattr(properties, "shared_memory_per_block_optin", usual)


@triton.jit
def accumulate(
    b_result, b_sum, b_max, b_query, b_key, b_value, b_visible, scale, MASKED: tl.constexpr
):
    """Adds one block of keys to the softmax of each row."""
    # [ROWS, KEYS]
    b_scores = tl.dot(b_query, tl.trans(b_key), input_precision="ieee")
    if MASKED:
        b_scores = tl.where(b_visible, b_scores, float("-inf"))
    # [ROWS]; it is never -inf, because a row without a visible key must give zeros and not NaN
    b_new_max = tl.maximum(b_max, tl.max(b_scores, 1) * scale)
    b_weights = tl.math.exp2(b_scores * scale - b_new_max[:, None])
    b_shrink = tl.math.exp2(b_max - b_new_max)
    b_sum = b_sum * b_shrink + tl.sum(b_weights, 1)
    # [ROWS, BLOCK_SIZE]
    b_result = b_result * b_shrink[:, None]
    b_result = tl.dot(b_weights.to(b_value.dtype), b_value, b_result, input_precision="ieee")
    return b_result, b_sum, b_new_max


@triton.jit
def load_rows(
    p_head,
    stride,
    b_places,
    b_inside,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Loads rows of a head, [KEYS, BLOCK]. They are zero beyond SIZE and, if masked, outside."""
    b_channels = tl.arange(0, BLOCK)
    p_block = p_head + b_places.to(tl.int64)[:, None] * stride + b_channels[None, :]
    if MASKED:
        return tl.load(p_block, b_inside[:, None] & (b_channels < SIZE)[None, :], other=0.0)
    if SIZE < BLOCK:
        return tl.load(p_block, (b_channels < SIZE)[None, :], other=0.0)
    return tl.load(p_block)


@triton.jit
def attend_range(
    b_result, b_sum, b_max, b_query, p_key, key_row, p_value, value_row, first, all_from, all_to,
    stop, b_low, b_high, scale, SIZE: tl.constexpr, BLOCK: tl.constexpr, KEYS: tl.constexpr
):  # fmt: skip
    """Visits the range of a tile: first the blocks that every row sees, then those at its ends.

    Each key from `first` to `stop` is seen by at least one row. Each key from `all_from` to
    `all_to` is seen by every row; `all_to` may be less than `all_from`.
    """
    blocks_before = tl.cdiv(all_from - first, KEYS)
    whole = first + blocks_before * KEYS
    whole_stop = tl.maximum(whole, first + (all_to - first) // KEYS * KEYS)
    # [KEYS]
    b_numbers = tl.arange(0, KEYS)
    for start in tl.range(whole, whole_stop, KEYS):
        # [KEYS, BLOCK]
        b_key = load_rows(p_key, key_row, start + b_numbers, None, SIZE, BLOCK, False)
        b_value = load_rows(p_value, value_row, start + b_numbers, None, SIZE, BLOCK, False)
        b_result, b_sum, b_max = accumulate(
            b_result, b_sum, b_max, b_query, b_key, b_value, None, scale, False
        )
    blocks_behind = tl.cdiv(tl.maximum(stop - whole_stop, 0), KEYS)
    for block in tl.range(0, blocks_before + blocks_behind):
        start = tl.where(block < blocks_before, first, whole_stop - blocks_before * KEYS)
        b_places = start + block * KEYS + b_numbers
        b_inside = b_places < stop
        # [KEYS, BLOCK]
        b_key = load_rows(p_key, key_row, b_places, b_inside, SIZE, BLOCK, True)
        b_value = load_rows(p_value, value_row, b_places, b_inside, SIZE, BLOCK, True)
        # [ROWS, KEYS]
        b_visible = (b_places[None, :] >= b_low[:, None]) & (b_places[None, :] < b_high[:, None])
        b_result, b_sum, b_max = accumulate(
            b_result, b_sum, b_max, b_query, b_key, b_value, b_visible, scale, True
        )
    return b_result, b_sum, b_max
