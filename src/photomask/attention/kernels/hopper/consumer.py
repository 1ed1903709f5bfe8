"""A consumer of a Hopper program: four warps that hold 64 queries and visit a tile's blocks."""

# Pyright reads the body of a kernel as Python, which it is not.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportAssignmentType=false

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

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
    VALID,
    pick,
)


@gluon.jit
def _listen(work, turn):
    """Receives the 16 numbers of a tile. Every thread then holds all of them."""
    slot = turn % 2
    mbarrier.wait(work.told_full.index(slot), (turn // 2) & 1)
    b_numbers = work.told.index(slot).load(gl.BlockedLayout([16], [32], [4], [0]))
    mbarrier.arrive(work.told_empty.index(slot), count=1)
    return b_numbers


@gluon.jit
def _rows(table, b_numbers, query_start, HALF: gl.constexpr, LAYOUT: gl.constexpr):
    """Returns 64 queries of a tile as places among all queries, and which of them are in use."""
    b_slots = 64 * HALF + gl.arange(0, 64, gl.SliceLayout(1, LAYOUT))
    scattered = pick(b_numbers, SCATTERED) > 0
    p_rows = table.rows + pick(b_numbers, TILE) * 128 + b_slots
    b_rows = gl.load(p_rows, (b_slots >= 0) & scattered, other=0)
    b_rows = gl.where(scattered, b_rows, pick(b_numbers, FIRST_ROW) + b_slots)
    b_used = b_slots < pick(b_numbers, USED)
    return gl.where(b_used, b_rows - query_start, 0).to(gl.int64), b_used


@gluon.jit
def _tile_of(heads, b_numbers, b_rows, SIZE: gl.constexpr, LAYOUT: gl.constexpr):
    """Returns pointers to rows of a head, [64, SIZE]."""
    p_head = heads.pointer + pick(b_numbers, PROMPT).to(gl.int64) * heads.prompt
    p_head += pick(b_numbers, HEAD).to(gl.int64) * heads.head
    b_channels = gl.arange(0, SIZE, gl.SliceLayout(0, LAYOUT))
    return p_head + b_rows[:, None] * heads.row + b_channels[None, :]


@gluon.jit
def _load_query(query, table, b_numbers, query_start, HALF: gl.constexpr, SIZE: gl.constexpr,
                LAYOUT: gl.constexpr):  # fmt: skip
    """Loads half a tile of queries, [64, SIZE]."""
    b_rows, b_used = _rows(table, b_numbers, query_start, HALF, LAYOUT)
    return gl.load(_tile_of(query, b_numbers, b_rows, SIZE, LAYOUT), b_used[:, None], other=0.0)


@gluon.jit
def _bits_before(b_bound, KEYS: gl.constexpr):
    """Returns a word with a bit for each column of a thread, set if it lies before a bound."""
    b_bound = gl.minimum(gl.maximum(b_bound, 0), KEYS)
    b_count = (b_bound >> 3) * 2 + gl.minimum(b_bound & 7, 2)
    return gl.where(b_count < 32, (1 << b_count) - 1, -1)


@gluon.jit
def _mask(b_scores, b_low, b_high, KEYS: gl.constexpr):
    """Hides the columns of [64, KEYS] that are not in `low` … `high` of their row.

    A thread holds the columns 8 i + 2 lane + j of a row. One word of bits says which of them are
    visible.
    """
    b_parts = b_scores.reshape([64, KEYS // 8, 4, 2])
    PARTS: gl.constexpr = b_parts.type.layout
    LANES: gl.constexpr = gl.SliceLayout(1, gl.SliceLayout(3, PARTS))
    b_lanes = 2 * gl.arange(0, 4, gl.SliceLayout(0, LANES))[None, :]
    b_from = gl.convert_layout(b_low, gl.SliceLayout(1, LANES))[:, None] - b_lanes
    b_to = gl.convert_layout(b_high, gl.SliceLayout(1, LANES))[:, None] - b_lanes
    b_words = _bits_before(b_to, KEYS) & ~_bits_before(b_from, KEYS)
    b_words = b_words.expand_dims(1).expand_dims(3)
    LOW: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(2, gl.SliceLayout(3, PARTS)))
    HIGH: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(1, gl.SliceLayout(2, PARTS)))
    b_i = gl.arange(0, KEYS // 8, LOW)[None, :].expand_dims(2).expand_dims(3)
    b_j = gl.arange(0, 2, HIGH)[None, :].expand_dims(1).expand_dims(2)
    b_parts = gl.where(((b_words >> (2 * b_i + b_j)) & 1) != 0, b_parts, float("-inf"))
    return gl.convert_layout(b_parts.reshape([64, KEYS]), b_scores.type.layout)


@gluon.jit
def _bounds(b_numbers, b_low, b_high, block, KEYS: gl.constexpr):
    """Returns the columns of a masked block that each row sees, as two bounds, [64] each."""
    in_range = block < pick(b_numbers, MASKED)  # otherwise the block is the tail of the list
    is_before = block < pick(b_numbers, BEFORE)
    place = gl.where(is_before, pick(b_numbers, FIRST), pick(b_numbers, BEHIND_FROM)) + block * KEYS
    tail = pick(b_numbers, TAIL)
    return gl.where(in_range, b_low - place, 0), gl.where(in_range, b_high - place, tail)


@gluon.jit
def _row_max(b_scores, KEYS: gl.constexpr):
    """Returns the largest score of each row.

    The scores are compared as a tree, so that the comparisons of a thread seldom wait for another.
    """
    b_largest = gl.max(b_scores.reshape([64, 4, KEYS // 32, 4, 2]), 4)
    b_largest = gl.max(gl.max(gl.max(b_largest, 2), 1), 1)
    return gl.convert_layout(b_largest, gl.SliceLayout(1, b_scores.type.layout))


@gluon.jit
def _sum_of_thread(b_weights, KEYS: gl.constexpr):
    """Returns the sum of what each thread holds of a row, [64, 4]: four threads share a row."""
    b_sum = gl.sum(b_weights.reshape([64, 4, KEYS // 32, 4, 2]), 4)
    return gl.sum(gl.sum(b_sum, 2), 1)


@gluon.jit
def _step(b_query, work, pair, b_weights, b_result, b_max, b_sum, b_low, b_high, scale,
          MASKED: gl.constexpr, KEYS: gl.constexpr, SIZE: gl.constexpr,
          STAGES: gl.constexpr):  # fmt: skip
    """Multiplies by the keys of block n + 1 and the values of block n, and computes the softmax.

    `pair` is n, the number of the block among all blocks that the program visits. `b_weights`,
    float32 [64, KEYS], are the weights of block n, which are not divided by their sum. `b_result`,
    float32 [64, SIZE], is the result of the blocks before n. `b_max`, [64], is the largest score so
    far, multiplied by `scale`. `b_sum`, [64, 4], is the sum so far of each of the four threads of a
    row.

    If the pipeline has only two stages, a stage is released as soon as it was read. If it has more,
    it is released a step later, when the warps wait for each other anyway.
    """
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    RESULT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, SIZE, 16])
    stage = (pair + 1) % STAGES
    b_left = gl.convert_layout(b_weights.to(b_query.dtype), gl.DotOperandLayout(0, RESULT, 2))
    b_zeros = gl.zeros([64, KEYS], gl.float32, SCORES)
    b_keys = work.key_blocks.index(stage).reshape([KEYS, SIZE]).permute((1, 0))
    scores = warpgroup_mma(b_query, b_keys, b_zeros, use_acc=False, is_async=True)
    b_values = work.value_blocks.index(stage).reshape([KEYS, SIZE])
    result = warpgroup_mma(b_left, b_values, b_result, is_async=True)
    b_scores = warpgroup_mma_wait(1, deps=[scores])
    if MASKED:
        b_scores = _mask(b_scores, b_low, b_high, KEYS)
    b_new_max = gl.maximum(b_max, _row_max(b_scores, KEYS) * scale)
    b_weights = gl.exp2(b_scores * scale - b_new_max[:, None])
    b_shrink = gl.exp2(b_max - b_new_max)
    b_part = _sum_of_thread(b_weights, KEYS)
    b_sum *= gl.convert_layout(b_shrink, gl.SliceLayout(1, b_part.type.layout))[:, None]
    if STAGES > 2:
        mbarrier.arrive(work.empty.index(pair % STAGES), count=1)
    # The softmax must run while the product runs. This wait for the next blocks also keeps the
    # assembler from moving the softmax behind the wait for the product.
    mbarrier.wait(work.full.index((pair + 2) % STAGES), ((pair + 2) // STAGES) & 1)
    b_result, b_left = warpgroup_mma_wait(0, deps=[result, b_left])
    if STAGES == 2:
        mbarrier.arrive(work.empty.index(stage), count=1)
    b_result *= gl.convert_layout(b_shrink, gl.SliceLayout(1, RESULT))[:, None]
    return b_weights, b_result, b_new_max, b_sum + b_part


@gluon.jit
def _attend(HALF: gl.constexpr, b_query, table, b_numbers, work, pair, scale,
            KEYS: gl.constexpr, SIZE: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Visits the blocks of half a tile. It starts the last product and does not wait for it."""
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    RESULT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, SIZE, 16])
    b_slots = pick(b_numbers, ENTRY) * 128 + 64 * HALF
    b_slots += gl.arange(0, 64, gl.SliceLayout(1, SCORES))
    b_low = gl.load(table.low + b_slots)
    b_high = gl.load(table.high + b_slots)
    b_keys = work.key_blocks.index(pair % STAGES).reshape([KEYS, SIZE]).permute((1, 0))
    b_zeros = gl.zeros([64, KEYS], gl.float32, SCORES)
    b_scores = warpgroup_mma(b_query, b_keys, b_zeros, use_acc=False)
    if STAGES == 2:
        mbarrier.arrive(work.empty.index(pair % STAGES), count=1)
    b_from, b_to = _bounds(b_numbers, b_low, b_high, 0, KEYS)
    b_scores = _mask(b_scores, b_from, b_to, KEYS)
    b_max = gl.maximum(_row_max(b_scores, KEYS) * scale, -1.0e30)  # it must not be -inf
    b_weights = gl.exp2(b_scores * scale - b_max[:, None])
    b_sum = _sum_of_thread(b_weights, KEYS)
    b_result = gl.zeros([64, SIZE], gl.float32, RESULT)
    mbarrier.wait(work.full.index((pair + 1) % STAGES), ((pair + 1) // STAGES) & 1)
    with_tail = pick(b_numbers, MASKED) + (pick(b_numbers, TAIL) > 0).to(gl.int32)
    blocks = pick(b_numbers, BLOCKS)
    idle = pick(b_numbers, USED) <= 64 * HALF
    for _ in range(1, gl.where(idle, blocks, 1)):  # only the other half has rows: skip the blocks
        mbarrier.arrive(work.empty.index((pair + (STAGES == 2)) % STAGES), count=1)
        mbarrier.wait(work.full.index((pair + 2) % STAGES), ((pair + 2) // STAGES) & 1)
        pair += 1
    for block in range(1, gl.where(idle, 1, with_tail)):
        b_from, b_to = _bounds(b_numbers, b_low, b_high, block, KEYS)
        b_weights, b_result, b_max, b_sum = _step(
            b_query, work, pair, b_weights, b_result, b_max, b_sum, b_from, b_to, scale,
            True, KEYS, SIZE, STAGES,
        )  # fmt: skip
        pair += 1
    for _ in range(with_tail, gl.where(idle, with_tail, blocks)):
        b_weights, b_result, b_max, b_sum = _step(
            b_query, work, pair, b_weights, b_result, b_max, b_sum, b_low, b_high, scale,
            False, KEYS, SIZE, STAGES,
        )  # fmt: skip
        pair += 1
    b_left = gl.convert_layout(b_weights.to(b_query.dtype), gl.DotOperandLayout(0, RESULT, 2))
    b_values = work.value_blocks.index((pair + 1) % STAGES).reshape([KEYS, SIZE])
    result = warpgroup_mma(b_left, b_values, b_result, is_async=True)
    if STAGES > 2:
        mbarrier.arrive(work.empty.index(pair % STAGES), count=1)
    return result, b_left, b_sum, pair + 1


@gluon.jit
def consume(HALF: gl.constexpr, query, output, table, query_start, scale, work,
             SIZE: gl.constexpr, KEYS: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Computes half of each tile that the producer announces."""
    LANES: gl.constexpr = SIZE // 8
    ROWS: gl.constexpr = 32 // LANES
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [ROWS, LANES], [4, 1], [1, 0])
    memory = work.query.index(HALF)
    b_numbers = _listen(work, 0)
    memory.store(_load_query(query, table, b_numbers, query_start, HALF, SIZE, LAYOUT))
    fence_async_shared()
    turn = 1
    pair = 0
    mbarrier.wait(work.full.index(0), 0)
    while pick(b_numbers, VALID) > 0:
        result, b_left, b_sum, pair = _attend(
            HALF, memory, table, b_numbers, work, pair, scale, KEYS, SIZE, STAGES
        )
        # The queries of the next tile are loaded while the last product runs.
        b_next = _listen(work, turn)
        b_query = _load_query(query, table, b_next, query_start, HALF, SIZE, LAYOUT)
        b_result, b_left = warpgroup_mma_wait(0, deps=[result, b_left])
        b_total = gl.convert_layout(gl.sum(b_sum, 1), gl.SliceLayout(1, b_result.type.layout))
        b_result *= (1.0 / gl.where(b_total > 0, b_total, 1.0))[:, None]
        memory.store(b_result.to(memory.dtype))
        b_rows, b_used = _rows(table, b_numbers, query_start, HALF, LAYOUT)
        p_output = _tile_of(output, b_numbers, b_rows, SIZE, LAYOUT)
        b_output = memory.load(LAYOUT)
        memory.store(b_query)
        fence_async_shared()  # before the store below, because it would wait for that store
        gl.store(p_output, b_output, b_used[:, None])
        b_numbers = b_next
        turn += 1
