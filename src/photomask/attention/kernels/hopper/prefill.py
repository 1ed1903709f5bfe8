"""Sparse prefill for Hopper: one launch of persistent, warp-specialized programs.

A program holds one processor of the GPU and takes tiles of heads from a common counter, longest
first, so that none waits for another at the end. One warp, the *producer*, reads what a tile visits
and fetches blocks of keys and values through the tensor memory accelerator; two groups of four
warps, the *consumers*, hold 64 queries each and share the blocks. While a consumer's product of
weights and values runs, it already takes the softmax of the next block, and the query tile to come
is fetched ahead into the cache.

The compact list lies in memory with the sinks in descending order before the text in ascending
order. What a tile lists is then one stretch of it, whatever the numbers of both.

Source: Shah et al. 2024, arXiv:2407.08608, for the division of labour between the warps.
"""

# Pyright reads the body of a kernel as Python, which it is not.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from photomask.attention.kernels.hopper.consumer import consume
from photomask.attention.kernels.hopper.numbers import Blocks, Work
from photomask.attention.kernels.hopper.producer import produce
from photomask.attention.schedule import Schedule

TILE_ROWS = 128
BLOCKS = {64: (128, 4), 128: (128, 3), 256: (64, 2)}
"""For each head size that the kernel takes, the keys of a block and how many blocks wait."""


def hopper_prefill(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    schedule: Schedule,
    codes: Tensor,
    heads: Tensor,
    scale: float,
    output: Tensor,
) -> None:
    """Computes some heads over a schedule; the contract is that of `triton_prefill`.

    That `hopper_takes` the tensors and the schedule is the caller's word.

    Args:
        query: [B, H, Q, D], float16 or bfloat16.
        key: [B, G, K, D].
        value: [B, G, K, D].
        schedule: of the prompts.
        codes: int8 [H], the pattern of every head.
        heads: int32 [S], the heads to compute, each once.
        scale: factor of the scores.
        output: [B, H, Q, D], the last stride 1.
    """
    head_size = query.shape[3]
    tiles = len(schedule.rows)
    chosen = len(heads)
    if not output.numel() or not chosen:
        return
    keys, stages = BLOCKS[head_size]
    known = [tensor[:, :, : schedule.keys] for tensor in (key, value)]
    blocks = [_descriptor(tensor, keys) for tensor in known]
    if schedule.compact.shape[1]:
        listed = [schedule.gather(tensor) for tensor in known]
        blocks += [_descriptor(tensor, keys) for tensor in listed]
    else:
        blocks += blocks
    processors = torch.cuda.get_device_properties(query.device).multi_processor_count
    taken = torch.zeros(1, dtype=torch.int32, device=query.device)
    _prefill[(min(processors, tiles * chosen),)](
        _Heads(query, *query.stride()[:3]),
        _Heads(output, *output.stride()[:3]),
        *blocks,
        _Table(*(getattr(schedule, name) for name in _Table._fields)),
        codes,
        heads,
        taken,
        tiles,
        chosen,
        schedule.query_start,
        scale * math.log2(math.e),
        GROUP=query.shape[1] // key.shape[1],
        SIZE=head_size,
        KEYS=keys,
        STAGES=stages,
        num_warps=4,
    )


def hopper_takes(query: Tensor, key: Tensor, value: Tensor, schedule: Schedule) -> bool:
    """Tells, on the host, whether this kernel computes such tensors; they are on a Hopper GPU.

    Blocks are fetched whole, with what stands beyond the visible keys, and a weight of zero does
    not cancel what is no number: prompts with padding are left to the other kernel. So are sliding
    windows.
    """
    if query.dtype not in (torch.float16, torch.bfloat16) or query.shape[3] not in BLOCKS:
        return False
    if schedule.windowed or schedule.padded or schedule.rows.shape[1] != TILE_ROWS:
        return False
    return all(
        tensor.data_ptr() % 16 == 0 and all(step % 8 == 0 for step in tensor.stride()[:3])
        for tensor in (query, key, value)
    )


class _Heads(NamedTuple):
    """A tensor [B, heads, rows, D] and its strides."""

    pointer: Tensor
    prompt: int
    head: int
    row: int


class _Table(NamedTuple):
    """Tensors of a schedule."""

    prompts: Tensor
    rows: Tensor
    low: Tensor
    high: Tensor
    tiles: Tensor


def _descriptor(tensor: Tensor, keys: int) -> TensorDescriptor:
    """Describes [B, G, K, D] in blocks of keys to the tensor memory accelerator."""
    block = [1, 1, keys, tensor.shape[3]]
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)


@gluon.jit(do_not_specialize=["tiles", "chosen", "query_start"])
def _prefill(query, output, key, value, listed_key, listed_value, table, codes, heads, taken, tiles,
             chosen, query_start, scale, GROUP: gl.constexpr, SIZE: gl.constexpr,
             KEYS: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Shares the tiles of all chosen heads out among programs, and the work among their warps."""
    QUERY: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    BARRIER: gl.constexpr = mbarrier.MBarrierLayout()
    NUMBERS: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    work = Work(
        gl.allocate_shared_memory(key.dtype, [2, 64, SIZE], QUERY),
        gl.allocate_shared_memory(key.dtype, [STAGES, 1, 1, KEYS, SIZE], key.layout),
        gl.allocate_shared_memory(key.dtype, [STAGES, 1, 1, KEYS, SIZE], key.layout),
        gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER),
        gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER),
        gl.allocate_shared_memory(gl.int32, [2, 16], NUMBERS),
        gl.allocate_shared_memory(gl.int64, [2, 1], BARRIER),
        gl.allocate_shared_memory(gl.int64, [2, 1], BARRIER),
    )
    for stage in gl.static_range(STAGES):
        mbarrier.init(work.full.index(stage), count=1)
        mbarrier.init(work.empty.index(stage), count=2)
    for slot in gl.static_range(2):
        mbarrier.init(work.told_full.index(slot), count=1)
        mbarrier.init(work.told_empty.index(slot), count=2)
    fence_async_shared()
    blocks = Blocks(key, value, listed_key, listed_value)
    gl.warp_specialize(
        [
            (_consume_first, (query, output, table, query_start, scale, work, SIZE, KEYS, STAGES)),
            (_consume_second, (query, output, table, query_start, scale, work, SIZE, KEYS, STAGES)),
            (produce, (query, blocks, table, codes, heads, taken, tiles, chosen, query_start, work,
                        GROUP, SIZE, KEYS, STAGES)),
        ],
        [4, 1],  # warps of the second and the third; the first has those of the launch
        [232, 40],  # registers of a thread
    )  # fmt: skip


@gluon.jit
def _consume_first(query, output, table, query_start, scale, work, SIZE: gl.constexpr,
                   KEYS: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Computes the first half of each tile."""
    consume(0, query, output, table, query_start, scale, work, SIZE, KEYS, STAGES)


@gluon.jit
def _consume_second(query, output, table, query_start, scale, work, SIZE: gl.constexpr,
                    KEYS: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Computes the second half of each tile."""
    consume(1, query, output, table, query_start, scale, work, SIZE, KEYS, STAGES)
