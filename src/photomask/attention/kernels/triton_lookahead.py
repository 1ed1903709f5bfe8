"""Adds the later tokens of an image to image rows that a causal kernel has computed.

In some models the tokens of an image see each other in both directions. A dense head then sees the
keys up to its own position and, in a row of an image, also the later tokens of that image. A dense
kernel computes the first part. For every row it writes the output and the logarithm of the sum of
the softmax. From these, the online softmax continues over the rest of the image. This is little
work, and there is none for rows of text.

Source: Milakov and Gimelshein 2018, arXiv:1805.02867, for how two parts of a softmax are joined.
"""

# Pyright reads the body of a kernel as Python, which it is not.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false

from __future__ import annotations

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from photomask.attention.kernels.triton_blocks import (
    Heads,
    attend_range,
    choose_blocks,
    count_shared_bytes,
    load_rows,
)
from photomask.attention.patterns import Pattern
from photomask.attention.schedule import Schedule


def triton_look_ahead(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    schedule: Schedule,
    scale: float,
    output: Tensor,
    log_sums: Tensor,
) -> None:
    """Adds the later tokens of their image to the image rows of dense heads.

    The caller guarantees that the schedule is `causal_and_ahead`.

    Args:
        query: the queries, [B, H, Q, D], as for `triton_prefill`.
        key: the keys, [B, G, K, D].
        value: the values, [B, G, K, D].
        schedule: the schedule of the prompts.
        scale: the factor of the scores.
        output: [B, H, Q, D], with the last stride 1, the attention over the keys up to each row's
            own position. Rows that see later tokens are replaced, and all others stay as they are.
        log_sums: float32 [B, H, Q], with the last stride 1, the logarithm of the sum of
            `exp(scale * score)` over these keys for each row.
    """
    if not output.numel():
        return
    tiles, tile_rows = schedule.rows.shape
    heads, head_size = query.shape[1], query.shape[3]
    block = max(triton.next_power_of_2(head_size), 16)
    blocks = choose_blocks(block, query.dtype, tile_rows, count_shared_bytes(query.device))
    _look_ahead[(tiles * (tile_rows // blocks.rows) * heads,)](
        Heads.of(query),
        Heads.of(key),
        Heads.of(value),
        Heads.of(output),
        log_sums,
        *log_sums.stride()[:2],
        _Table(schedule.prompts, schedule.rows, schedule.high[Pattern.DENSE]),
        heads,
        schedule.query_start,
        scale * math.log2(math.e),
        GROUP=heads // key.shape[1],
        SIZE=head_size,
        BLOCK=block,
        TILE_ROWS=tile_rows,
        ROWS=blocks.rows,
        KEYS=blocks.keys,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )


class _Table(NamedTuple):
    """The tensors of a schedule, as the kernel takes them. `stop` is `high` of a dense head."""

    prompts: Tensor
    rows: Tensor
    stop: Tensor


@triton.jit(do_not_specialize=["heads", "query_start"])
def _look_ahead(
    query, key, value, output, p_log_sums, log_sums_prompt, log_sums_head, table, heads,
    query_start, scale, GROUP: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
    TILE_ROWS: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr
):  # fmt: skip
    """Continues ROWS rows of one tile for one head, [ROWS, SIZE]. BLOCK is at least SIZE."""
    program = tl.program_id(0)
    head = (program % heads).to(tl.int64)
    part = (program // heads).to(tl.int64)  # a tile has TILE_ROWS // ROWS parts
    # [ROWS]
    b_slots = part * ROWS + tl.arange(0, ROWS)
    b_rows = tl.load(table.rows + b_slots)
    b_low = b_rows + 1  # both this and the stop are 0 where a tile is not full
    b_stop = tl.load(table.stop + b_slots)
    b_ahead = b_stop > b_low
    stop = tl.max(b_stop)
    if tl.max(b_ahead.to(tl.int32)) > 0:  # then all rows belong to one image
        owner = head // GROUP
        prompt = tl.load(table.prompts + part // (TILE_ROWS // ROWS)).to(tl.int64)
        b_queries = tl.where(b_ahead, b_rows - query_start, 0)
        # [ROWS, BLOCK]
        p_head = query.pointer + prompt * query.prompt + head * query.head
        b_query = load_rows(p_head, query.row, b_queries, b_ahead, SIZE, BLOCK, True)
        p_head = output.pointer + prompt * output.prompt + head * output.head
        b_result = load_rows(p_head, output.row, b_queries, b_ahead, SIZE, BLOCK, True)
        # [ROWS]
        p_sum = p_log_sums + prompt * log_sums_prompt + head * log_sums_head
        b_max = tl.load(p_sum + b_queries, b_ahead, other=0.0) * 1.4426950408889634  # log2(e)
        b_sum = tl.full([ROWS], 1.0, tl.float32)
        b_result, b_sum, b_max = attend_range(
            b_result.to(tl.float32), b_sum, b_max, b_query,
            key.pointer + prompt * key.prompt + owner * key.head, key.row,
            value.pointer + prompt * value.prompt + owner * value.head, value.row,
            tl.min(tl.where(b_ahead, b_low, stop)), tl.max(b_low), stop, stop,
            b_low, b_stop, scale, SIZE, BLOCK, KEYS,
        )  # fmt: skip
        # [ROWS, BLOCK]
        b_channels = tl.arange(0, BLOCK)
        p_block = p_head + b_queries.to(tl.int64)[:, None] * output.row + b_channels[None, :]
        b_stored = b_ahead[:, None] & (b_channels < SIZE)[None, :]
        b_result = (b_result / b_sum[:, None]).to(output.pointer.dtype.element_ty)
        tl.store(p_block, b_result, mask=b_stored)
