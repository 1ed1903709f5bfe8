"""Sparse prefill for Hopper: one launch of persistent, warp-specialized programs.

A program occupies one streaming multiprocessor of the GPU. It takes tiles of heads from a common
counter, the longest tiles first, so that all programs end at about the same time. One warp, the
*producer*, reads which keys a tile visits, and fetches blocks of keys and values through the tensor
memory accelerator. Two groups of four warps, the *consumers*, hold 64 queries each and share the
blocks. While the product of weights and values of a block runs, a consumer already computes the
softmax of the next block. The queries of the next tile are fetched into the cache ahead of time.

In the compact list, the sinks stand in descending order before the text in ascending order. The
sinks and the text of a tile are therefore one contiguous stretch of it.

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
"""For each supported head size, the keys of a block and the number of blocks in the pipeline."""


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
    """Computes some heads over a schedule. The contract is that of `triton_prefill`.

    The caller guarantees that `hopper_takes` accepts the tensors and the schedule.

    Args:
        query: the queries, [B, H, Q, D], float16 or bfloat16.
        key: the keys, [B, G, K, D].
        value: the values, [B, G, K, D].
        schedule: the schedule of the prompts.
        codes: int8 [H], the pattern of every head.
        heads: int32 [S], the heads to compute, each once.
        scale: the factor of the scores.
        output: the tensor for the result, [B, H, Q, D], with the last stride 1.
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
    """Returns whether this kernel takes some tensors on a Hopper GPU. It decides on the host.

    The kernel fetches whole blocks, which also contain keys and values that are not visible. These
    may be NaN if they belong to padding, and NaN times a weight of zero is NaN. Prompts with
    padding are therefore left to the other kernel, and so are sliding windows.
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
    """The tensors of a schedule, as the kernel takes them."""

    prompts: Tensor
    rows: Tensor
    low: Tensor
    high: Tensor
    tiles: Tensor


def _descriptor(tensor: Tensor, keys: int) -> TensorDescriptor:
    """Returns the descriptor of a tensor [B, G, K, D] for the tensor memory accelerator."""
    block = [1, 1, keys, tensor.shape[3]]
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)


@gluon.jit(do_not_specialize=["tiles", "chosen", "query_start"])
def _prefill(query, output, key, value, listed_key, listed_value, table, codes, heads, taken, tiles,
             chosen, query_start, scale, GROUP: gl.constexpr, SIZE: gl.constexpr,
             KEYS: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Distributes the tiles of the heads to programs, and the work of a program to its warps."""
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
        [4, 1],  # the warps of the second and third function; the first has those of the launch
        [232, 40],  # the registers of each of their threads
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
