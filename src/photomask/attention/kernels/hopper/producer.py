"""The producer of a Hopper program: one warp that reads tiles and fetches keys and values."""

# Pyright reads the body of a kernel as Python, which it is not.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportAssignmentType=false

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

from photomask.attention.kernels.hopper.numbers import (
    BEFORE,
    BEHIND_FROM,
    BLOCKS,
    ENTRY,
    FIRST,
    FIRST_ROW,
    HEAD,
    MASKED,
    PROMPT,
    SCATTERED,
    TAIL,
    TILE,
    USED,
    pick,
    put,
)

_copy_block = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # Triton < 3.7


@gluon.jit
def _describe(query, table, codes, heads, item, tiles, chosen, query_start,
              SIZE: gl.constexpr, KEYS: gl.constexpr):  # fmt: skip
    """Reads the entry of a tile of a head in the schedule.

    Returns the 16 numbers that describe it, its prompt and head, the start of its part of the
    compact list and the number of whole blocks there, and the start of the whole blocks of the
    range.
    """
    tile = item // chosen
    head = gl.load(heads + item % chosen)
    prompt = gl.load(table.prompts + tile)
    entry = gl.load(codes + head).to(gl.int32) * tiles + tile
    p_entry = table.tiles + entry * 8
    text_to = gl.load(p_entry + 1)
    list_from = gl.load(p_entry + 2)
    first = gl.load(p_entry + 4)
    listed = text_to - list_from
    list_whole = listed // KEYS
    tail = listed - list_whole * KEYS
    before = (gl.load(p_entry + 5) - first + KEYS - 1) // KEYS
    range_from = first + before * KEYS
    range_whole = gl.maximum(gl.load(p_entry + 6) - range_from, 0) // KEYS
    behind_from = range_from + range_whole * KEYS
    behind = (gl.maximum(gl.load(p_entry + 7) - behind_from, 0) + KEYS - 1) // KEYS
    # The first block of a tile is always computed with a mask. If no block needs one, then the last
    # whole block becomes the first block.
    bare = (before + behind + tail) == 0
    range_whole -= (bare & (range_whole > 0)).to(gl.int32)
    behind += bare.to(gl.int32)
    behind_from = range_from + range_whole * KEYS
    LANES: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    p_rows = table.rows + tile * 128
    first_row = gl.load(p_rows)
    used = 0
    last_row = first_row
    for quarter in gl.static_range(4):
        # [32]
        b_rows = gl.load(p_rows + 32 * quarter + gl.arange(0, 32, LANES))
        used += gl.sum((b_rows >= 0).to(gl.int32), 0)
        last_row = gl.maximum(last_row, gl.max(b_rows, 0))
        _fetch_ahead(query, prompt, head, gl.maximum(b_rows - query_start, 0), SIZE)
    b_numbers = gl.full([16], 1, gl.int32, LANES)
    b_numbers = put(b_numbers, PROMPT, prompt)
    b_numbers = put(b_numbers, HEAD, head)
    b_numbers = put(b_numbers, TILE, tile)
    b_numbers = put(b_numbers, ENTRY, entry)
    b_numbers = put(b_numbers, FIRST_ROW, first_row)
    b_numbers = put(b_numbers, USED, used)
    b_numbers = put(b_numbers, SCATTERED, (last_row - first_row + 1 != used).to(gl.int32))
    b_numbers = put(b_numbers, FIRST, first)
    b_numbers = put(b_numbers, BEFORE, before)
    b_numbers = put(b_numbers, MASKED, before + behind)
    b_numbers = put(b_numbers, BEHIND_FROM, behind_from - before * KEYS)
    b_numbers = put(b_numbers, TAIL, tail)
    blocks = before + behind + (tail > 0).to(gl.int32) + list_whole + range_whole
    b_numbers = put(b_numbers, BLOCKS, blocks)
    return b_numbers, prompt, head, list_from, list_whole, range_from


@gluon.jit
def _fetch_ahead(query, prompt, head, b_rows, SIZE: gl.constexpr):
    """Prefetches rows of the query, [32], into the cache, in lines of 64 numbers."""
    p_head = query.pointer + prompt.to(gl.int64) * query.prompt + head.to(gl.int64) * query.head
    p_rows = p_head + b_rows.to(gl.int64) * query.row
    for line in gl.static_range(SIZE // 64):
        gl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
            "=r,l",
            [p_rows + 64 * line],
            dtype=gl.int32,
            is_pure=False,
            pack=1,
        )


@gluon.jit
def produce(query, blocks, table, codes, heads, taken, tiles, chosen, query_start, work,
             GROUP: gl.constexpr, SIZE: gl.constexpr, KEYS: gl.constexpr,
             STAGES: gl.constexpr):  # fmt: skip
    """Fetches the keys of block n together with the values of block n - 1, for all n."""
    items = tiles * chosen
    item = gl.program_id(0)
    turn = 0
    pair = 0
    v_prompt = 0
    v_owner = 0
    v_place = 0
    v_listed = item < 0
    while item < items:
        following = gl.atomic_add(taken, 1, sem="relaxed") + gl.num_programs(0)
        b_numbers, prompt, head, list_from, list_whole, range_from = _describe(
            query, table, codes, heads, item, tiles, chosen, query_start, SIZE, KEYS
        )
        _tell(work, turn, b_numbers)
        owner = head // GROUP
        before = pick(b_numbers, BEFORE)
        masked = pick(b_numbers, MASKED)
        behind_from = pick(b_numbers, BEHIND_FROM)
        with_tail = masked + (pick(b_numbers, TAIL) > 0).to(gl.int32)
        with_list = with_tail + list_whole
        for block in range(0, pick(b_numbers, BLOCKS)):
            listed = (block >= masked) & (block < with_list)
            place = gl.where(block < before, pick(b_numbers, FIRST), behind_from) + block * KEYS
            place = gl.where(block < masked, place, list_from + list_whole * KEYS)
            place = gl.where(block < with_tail, place, list_from + (block - with_tail) * KEYS)
            place = gl.where(block < with_list, place, range_from + (block - with_list) * KEYS)
            stage = pair % STAGES
            full = work.full.index(stage)
            mbarrier.wait(work.empty.index(stage), ((pair // STAGES) & 1) ^ 1)
            mbarrier.expect(full, 4 * KEYS * SIZE, pred=pair > 0)
            mbarrier.expect(full, 2 * KEYS * SIZE, pred=pair == 0)
            _fetch(blocks.key, blocks.listed_key, prompt, owner, place, listed, True, full,
                   work.key_blocks.index(stage))  # fmt: skip
            _fetch(blocks.value, blocks.listed_value, v_prompt, v_owner, v_place, v_listed,
                   pair > 0, full, work.value_blocks.index(stage))  # fmt: skip
            v_prompt = prompt
            v_owner = owner
            v_place = place
            v_listed = listed
            pair += 1
        turn += 1
        item = following
    _tell(work, turn, gl.full([16], 0, gl.int32, gl.BlockedLayout([1], [32], [1], [0])))
    full = work.full.index(pair % STAGES)
    mbarrier.wait(work.empty.index(pair % STAGES), ((pair // STAGES) & 1) ^ 1)
    mbarrier.expect(full, 2 * KEYS * SIZE)
    _fetch(blocks.value, blocks.listed_value, v_prompt, v_owner, v_place, v_listed, True, full,
           work.value_blocks.index(pair % STAGES))  # fmt: skip


@gluon.jit
def _fetch(block, listed_block, prompt, owner, place, listed, wanted, full, memory):
    """Starts to copy a block, either from the sequence or from the compact list."""
    _copy_block(block, [prompt, owner, place, 0], full, memory, pred=wanted & (listed == 0))
    _copy_block(listed_block, [prompt, owner, place, 0], full, memory, pred=wanted & listed)


@gluon.jit
def _tell(work, turn, b_numbers):
    """Passes the 16 numbers of a tile to the consumers."""
    slot = turn % 2
    mbarrier.wait(work.told_empty.index(slot), ((turn // 2) & 1) ^ 1)
    work.told.index(slot).store(b_numbers)
    mbarrier.arrive(work.told_full.index(slot), count=1)
