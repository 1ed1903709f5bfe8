"""Sparse prefill as one Triton launch over all tiles of some heads of a layer.

A program computes one tile of one head, whose pattern it reads. It walks the compact list first,
then the range, each without a mask as far as every row sees every key. What a pattern means is
decided in the schedule alone; the kernel knows intervals.

The softmax is taken online, in float32 and to base 2.

Source: Milakov and Gimelshein 2018, arXiv:1805.02867; Dao 2023, arXiv:2307.08691.
"""

# Pyright reads the body of a kernel as Python, which it is not.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from photomask.attention.schedule import Schedule


@dataclass(frozen=True)
class Blocks:
    """How a program is cut: queries and keys at once, warps, and stages of the pipeline."""

    rows: int
    keys: int
    warps: int
    stages: int


def triton_prefill(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    schedule: Schedule,
    codes: Tensor,
    heads: Tensor,
    scale: float,
    output: Tensor,
) -> None:
    """Computes some heads over a schedule; the contract is that of `prefill_attention`.

    That `check_kernel_arguments` takes the tensors is the caller's word.

    Args:
        query: [B, H, Q, D], float16, bfloat16 or float32, D at most 256; products of float32 are
            computed in float32.
        key: [B, G, K, D].
        value: [B, G, K, D].
        schedule: of the prompts.
        codes: int8 [H], the pattern of every head.
        heads: int32 [S], the heads to compute, each once.
        scale: factor of the scores.
        output: [B, H, Q, D], the last stride 1. All rows of these heads are written, those of
            padding with zero; other heads stay as they are.
    """
    if not output.numel() or not heads.numel():
        return
    tiles, tile_rows = schedule.rows.shape
    head_size = query.shape[3]
    block = max(triton.next_power_of_2(head_size), 16)
    blocks = choose_blocks(block, query.dtype, tile_rows, _shared_bytes(query.device))
    compact = schedule.compact
    _prefill[(tiles * (tile_rows // blocks.rows) * len(heads),)](
        _Heads.of(query),
        _Heads.of(key),
        _Heads.of(value),
        _Heads.of(schedule.gather(key)),
        _Heads.of(schedule.gather(value)),
        _Heads.of(output),
        _Table(*(getattr(schedule, name) for name in _Table._fields)),
        codes,
        heads,
        len(heads),
        tiles,
        schedule.query_start,
        compact.shape[1],
        scale * math.log2(math.e),
        GROUP=query.shape[1] // key.shape[1],
        SIZE=head_size,
        BLOCK=block,
        TILE_ROWS=tile_rows,
        ROWS=blocks.rows,
        KEYS=blocks.keys,
        WINDOWED=schedule.windowed,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )


class _Heads(NamedTuple):
    """A tensor [B, heads, rows, D] and its strides, as the kernel takes it."""

    pointer: Tensor
    prompt: int
    head: int
    row: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Heads:
        return cls(tensor, *tensor.stride()[:3])


class _Table(NamedTuple):
    """Tensors of a schedule, as the kernel takes them."""

    prompts: Tensor
    rows: Tensor
    low: Tensor
    high: Tensor
    near: Tensor
    tiles: Tensor
    compact: Tensor


def choose_blocks(block: int, dtype: torch.dtype, tile_rows: int, shared_bytes: int) -> Blocks:
    """Returns how to cut heads of size `block`, so that operands fit the shared memory.

    Args:
        block: the head size as a power of two.
        dtype: of query, key and value.
        tile_rows: queries of a tile of the schedule.
        shared_bytes: what a program may use.
    """
    if dtype == torch.float32:  # products outside the tensor cores want small blocks
        return Blocks(rows=min(32 if block <= 128 else 16, tile_rows), keys=16, warps=8, stages=1)
    rows, keys = (128, 64) if block <= 128 else (64, 32)
    rows = min(rows, tile_rows)
    left = shared_bytes - rows * block * dtype.itemsize
    stages = left // (2 * keys * block * dtype.itemsize)
    return Blocks(rows, keys, warps=rows // 16, stages=min(max(stages, 1), 3))


def _shared_bytes(device: torch.device) -> int:
    """Returns how much shared memory a program may have."""
    if device.type != "cuda":
        return 1 << 16  # Triton's interpreter
    properties = torch.cuda.get_device_properties(device)
    usual = properties.shared_memory_per_block
    return getattr(properties, "shared_memory_per_block_optin", usual)


@triton.jit
def _accumulate(
    b_result, b_sum, b_max, b_query, b_key, b_value, b_visible, scale, MASKED: tl.constexpr
):
    """Adds one block of keys to the softmax of each row."""
    # [ROWS, KEYS]
    b_scores = tl.dot(b_query, tl.trans(b_key), input_precision="ieee")
    if MASKED:
        b_scores = tl.where(b_visible, b_scores, float("-inf"))
    # [ROWS]; never -inf, so that a row without a visible key gives zeros and not NaN
    b_new_max = tl.maximum(b_max, tl.max(b_scores, 1) * scale)
    b_weights = tl.math.exp2(b_scores * scale - b_new_max[:, None])
    b_shrink = tl.math.exp2(b_max - b_new_max)
    b_sum = b_sum * b_shrink + tl.sum(b_weights, 1)
    # [ROWS, BLOCK_SIZE]
    b_result = b_result * b_shrink[:, None]
    b_result = tl.dot(b_weights.to(b_value.dtype), b_value, b_result, input_precision="ieee")
    return b_result, b_sum, b_new_max


@triton.jit
def _load(
    p_head,
    stride,
    b_places,
    b_inside,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Loads rows of a head, [KEYS, BLOCK]: zero beyond its SIZE and, if masked, outside."""
    b_channels = tl.arange(0, BLOCK)
    p_block = p_head + b_places.to(tl.int64)[:, None] * stride + b_channels[None, :]
    if MASKED:
        return tl.load(p_block, b_inside[:, None] & (b_channels < SIZE)[None, :], other=0.0)
    if SIZE < BLOCK:
        return tl.load(p_block, (b_channels < SIZE)[None, :], other=0.0)
    return tl.load(p_block)


@triton.jit
def _attend_list(
    b_result, b_sum, b_max, b_query, p_key, key_row, p_value, value_row, p_tile, p_positions,
    b_near, scale, SIZE: tl.constexpr, BLOCK: tl.constexpr, KEYS: tl.constexpr,
    WINDOWED: tl.constexpr
):  # fmt: skip
    """Visits the text and the sinks of a tile, one behind the other, in the compact list."""
    text_from = tl.load(p_tile)
    texts = tl.load(p_tile + 1) - text_from
    sink_from = tl.load(p_tile + 2)
    listed = texts + tl.load(p_tile + 3) - sink_from
    whole = 0 if WINDOWED else listed // KEYS * KEYS
    # [KEYS]
    b_numbers = tl.arange(0, KEYS)
    for start in tl.range(0, whole, KEYS):
        b_number = start + b_numbers
        b_slots = tl.where(b_number < texts, text_from, sink_from - texts) + b_number
        # [KEYS, BLOCK]
        b_key = _load(p_key, key_row, b_slots, None, SIZE, BLOCK, False)
        b_value = _load(p_value, value_row, b_slots, None, SIZE, BLOCK, False)
        b_result, b_sum, b_max = _accumulate(
            b_result, b_sum, b_max, b_query, b_key, b_value, None, scale, False
        )
    for start in tl.range(whole, listed, KEYS):
        b_number = start + b_numbers
        b_inside = b_number < listed
        b_slots = tl.where(b_number < texts, text_from, sink_from - texts) + b_number
        # [KEYS, BLOCK]
        b_key = _load(p_key, key_row, b_slots, b_inside, SIZE, BLOCK, True)
        b_value = _load(p_value, value_row, b_slots, b_inside, SIZE, BLOCK, True)
        # [ROWS or 1, KEYS]
        b_visible = b_inside[None, :]
        if WINDOWED:
            b_positions = tl.load(p_positions + b_slots, b_inside, other=-1)
            b_visible = b_visible & (b_positions[None, :] >= b_near[:, None])
        b_result, b_sum, b_max = _accumulate(
            b_result, b_sum, b_max, b_query, b_key, b_value, b_visible, scale, True
        )
    return b_result, b_sum, b_max


@triton.jit
def _attend_range(
    b_result, b_sum, b_max, b_query, p_key, key_row, p_value, value_row, p_tile, b_low, b_high,
    scale, SIZE: tl.constexpr, BLOCK: tl.constexpr, KEYS: tl.constexpr
):  # fmt: skip
    """Visits the range of a tile: first the blocks that every row sees, then those at its ends."""
    first = tl.load(p_tile + 4)
    stop = tl.load(p_tile + 7)
    blocks_before = tl.cdiv(tl.load(p_tile + 5) - first, KEYS)
    whole = first + blocks_before * KEYS
    whole_stop = tl.maximum(whole, first + (tl.load(p_tile + 6) - first) // KEYS * KEYS)
    # [KEYS]
    b_numbers = tl.arange(0, KEYS)
    for start in tl.range(whole, whole_stop, KEYS):
        # [KEYS, BLOCK]
        b_key = _load(p_key, key_row, start + b_numbers, None, SIZE, BLOCK, False)
        b_value = _load(p_value, value_row, start + b_numbers, None, SIZE, BLOCK, False)
        b_result, b_sum, b_max = _accumulate(
            b_result, b_sum, b_max, b_query, b_key, b_value, None, scale, False
        )
    blocks_behind = tl.cdiv(tl.maximum(stop - whole_stop, 0), KEYS)
    for block in tl.range(0, blocks_before + blocks_behind):
        start = tl.where(block < blocks_before, first, whole_stop - blocks_before * KEYS)
        b_places = start + block * KEYS + b_numbers
        b_inside = b_places < stop
        # [KEYS, BLOCK]
        b_key = _load(p_key, key_row, b_places, b_inside, SIZE, BLOCK, True)
        b_value = _load(p_value, value_row, b_places, b_inside, SIZE, BLOCK, True)
        # [ROWS, KEYS]
        b_visible = (b_places[None, :] >= b_low[:, None]) & (b_places[None, :] < b_high[:, None])
        b_result, b_sum, b_max = _accumulate(
            b_result, b_sum, b_max, b_query, b_key, b_value, b_visible, scale, True
        )
    return b_result, b_sum, b_max


@triton.jit(do_not_specialize=["heads", "tiles", "query_start", "compact_length"])
def _prefill(
    query, key, value, listed_key, listed_value, output, table, p_codes, p_heads, heads, tiles,
    query_start, compact_length, scale, GROUP: tl.constexpr, SIZE: tl.constexpr,
    BLOCK: tl.constexpr, TILE_ROWS: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    WINDOWED: tl.constexpr
):  # fmt: skip
    """Computes ROWS rows of one tile for one head, [ROWS, SIZE]; BLOCK is SIZE or more."""
    program = tl.program_id(0)
    head = tl.load(p_heads + program % heads).to(tl.int64)
    part = (program // heads).to(tl.int64)  # a tile is TILE_ROWS // ROWS parts
    tile = part // (TILE_ROWS // ROWS)
    owner = head // GROUP
    pattern = tl.load(p_codes + head).to(tl.int64)
    prompt = tl.load(table.prompts + tile).to(tl.int64)
    p_tile = table.tiles + (pattern * tiles + tile) * 8
    # [ROWS]
    b_slots = part * ROWS + tl.arange(0, ROWS)
    b_rows = tl.load(table.rows + b_slots)
    b_near = tl.load(table.near + b_slots)
    b_low = tl.load(table.low + pattern * tiles * TILE_ROWS + b_slots)
    b_high = tl.load(table.high + pattern * tiles * TILE_ROWS + b_slots)
    b_used = b_rows >= 0
    b_queries = tl.where(b_used, b_rows - query_start, 0)
    # [ROWS, BLOCK]
    p_head = query.pointer + prompt * query.prompt + head * query.head
    b_query = _load(p_head, query.row, b_queries, b_used, SIZE, BLOCK, True)
    b_result = tl.zeros([ROWS, BLOCK], tl.float32)
    # [ROWS]
    b_max = tl.full([ROWS], -1.0e30, tl.float32)
    b_sum = tl.zeros([ROWS], tl.float32)
    b_result, b_sum, b_max = _attend_list(
        b_result, b_sum, b_max, b_query,
        listed_key.pointer + prompt * listed_key.prompt + owner * listed_key.head, listed_key.row,
        listed_value.pointer + prompt * listed_value.prompt + owner * listed_value.head,
        listed_value.row, p_tile, table.compact + prompt * compact_length, b_near,
        scale, SIZE, BLOCK, KEYS, WINDOWED,
    )  # fmt: skip
    b_result, b_sum, b_max = _attend_range(
        b_result, b_sum, b_max, b_query,
        key.pointer + prompt * key.prompt + owner * key.head, key.row,
        value.pointer + prompt * value.prompt + owner * value.head, value.row,
        p_tile, b_low, b_high, scale, SIZE, BLOCK, KEYS,
    )  # fmt: skip
    # [ROWS, BLOCK]
    b_result = b_result / tl.where(b_sum > 0, b_sum, 1.0)[:, None]
    b_channels = tl.arange(0, BLOCK)
    p_block = output.pointer + prompt * output.prompt + head * output.head
    p_block += b_queries.to(tl.int64)[:, None] * output.row + b_channels[None, :]
    b_stored = b_used[:, None] & (b_channels < SIZE)[None, :]
    tl.store(p_block, b_result.to(output.pointer.dtype.element_ty), mask=b_stored)
