"""Sparse prefill as one Triton launch over all tiles of some heads of a layer.

A program computes rows of one tile for one head, and reads the pattern of the head. It visits the
compact list first and then the range. It uses no mask where every row sees every key. The meaning
of a pattern is decided in the schedule alone, and the kernel knows only intervals.
"""

# Pyright reads the body of a kernel as Python, which it is not.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from photomask.attention.kernels.triton_blocks import (
    Heads,
    accumulate,
    attend_range,
    choose_blocks,
    count_shared_bytes,
    load_rows,
)
from photomask.attention.schedule import Schedule


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
    """Computes some heads over a schedule. The contract is that of `prefill_attention`.

    The caller guarantees that `check_kernel_arguments` accepts the tensors.

    Args:
        query: the queries, [B, H, Q, D], float16, bfloat16 or float32, with D at most 256. Products
            of float32 are computed in float32.
        key: the keys, [B, G, K, D].
        value: the values, [B, G, K, D].
        schedule: the schedule of the prompts.
        codes: int8 [H], the pattern of every head.
        heads: int32 [S], the heads to compute, each once.
        scale: the factor of the scores.
        output: the tensor for the result, [B, H, Q, D], with the last stride 1. All rows of these
            heads are written, and the rows of padding become zero. Other heads stay as they are.
    """
    if not output.numel() or not heads.numel():
        return
    tiles, tile_rows = schedule.rows.shape
    head_size = query.shape[3]
    block = max(triton.next_power_of_2(head_size), 16)
    blocks = choose_blocks(block, query.dtype, tile_rows, count_shared_bytes(query.device))
    compact = schedule.compact
    _prefill[(tiles * (tile_rows // blocks.rows) * len(heads),)](
        Heads.of(query),
        Heads.of(key),
        Heads.of(value),
        Heads.of(schedule.gather(key)),
        Heads.of(schedule.gather(value)),
        Heads.of(output),
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


class _Table(NamedTuple):
    """The tensors of a schedule, as the kernel takes them."""

    prompts: Tensor
    rows: Tensor
    low: Tensor
    high: Tensor
    near: Tensor
    tiles: Tensor
    compact: Tensor


@triton.jit
def _attend_list(
    b_result, b_sum, b_max, b_query, p_key, key_row, p_value, value_row, p_tile, p_positions,
    b_near, scale, SIZE: tl.constexpr, BLOCK: tl.constexpr, KEYS: tl.constexpr,
    WINDOWED: tl.constexpr
):  # fmt: skip
    """Visits first the text and then the sinks of a tile in the compact list."""
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
        b_key = load_rows(p_key, key_row, b_slots, None, SIZE, BLOCK, False)
        b_value = load_rows(p_value, value_row, b_slots, None, SIZE, BLOCK, False)
        b_result, b_sum, b_max = accumulate(
            b_result, b_sum, b_max, b_query, b_key, b_value, None, scale, False
        )
    for start in tl.range(whole, listed, KEYS):
        b_number = start + b_numbers
        b_inside = b_number < listed
        b_slots = tl.where(b_number < texts, text_from, sink_from - texts) + b_number
        # [KEYS, BLOCK]
        b_key = load_rows(p_key, key_row, b_slots, b_inside, SIZE, BLOCK, True)
        b_value = load_rows(p_value, value_row, b_slots, b_inside, SIZE, BLOCK, True)
        # [ROWS or 1, KEYS]
        b_visible = b_inside[None, :]
        if WINDOWED:
            b_positions = tl.load(p_positions + b_slots, b_inside, other=-1)
            b_visible = b_visible & (b_positions[None, :] >= b_near[:, None])
        b_result, b_sum, b_max = accumulate(
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
    """Computes ROWS rows of one tile for one head, [ROWS, SIZE]. BLOCK is at least SIZE."""
    program = tl.program_id(0)
    head = tl.load(p_heads + program % heads).to(tl.int64)
    part = (program // heads).to(tl.int64)  # a tile has TILE_ROWS // ROWS parts
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
    b_query = load_rows(p_head, query.row, b_queries, b_used, SIZE, BLOCK, True)
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
    b_result, b_sum, b_max = attend_range(
        b_result, b_sum, b_max, b_query,
        key.pointer + prompt * key.prompt + owner * key.head, key.row,
        value.pointer + prompt * value.prompt + owner * value.head, value.row,
        tl.load(p_tile + 4), tl.load(p_tile + 5), tl.load(p_tile + 6), tl.load(p_tile + 7),
        b_low, b_high, scale, SIZE, BLOCK, KEYS,
    )  # fmt: skip
    # [ROWS, BLOCK]
    b_result = b_result / tl.where(b_sum > 0, b_sum, 1.0)[:, None]
    b_channels = tl.arange(0, BLOCK)
    p_block = output.pointer + prompt * output.prompt + head * output.head
    p_block += b_queries.to(tl.int64)[:, None] * output.row + b_channels[None, :]
    b_stored = b_used[:, None] & (b_channels < SIZE)[None, :]
    tl.store(p_block, b_result.to(output.pointer.dtype.element_ty), mask=b_stored)
