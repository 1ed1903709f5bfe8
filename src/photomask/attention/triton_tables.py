"""Computes the tables of a schedule with two Triton launches and one cumulative sum.

A host launches about fifty operations in a millisecond, and a GPU finishes each of these operations
before the next one is launched. Few launches are therefore fast. One kernel marks tokens, PyTorch
counts the marks, and a second kernel writes everything. It has a program for each tile, which finds
the rows of the tile by bisection of the counts.

`IntervalBuilder` and `torch_tables` define the tables. The kernels repeat the formulae of
`is_sink`, `IntervalBuilder._table` and `IntervalBuilder._lists`. Tests check for every rule that
the results are equal bit for bit.
"""

# Pyright reads the body of a kernel as Python, which it is not.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from itertools import pairwise

import torch
import triton
import triton.language as tl

from photomask.attention.intervals import check_queries
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, Pattern, SinkRule
from photomask.attention.tables import Tables, torch_tables

# The marks of a prompt are planes, [PLANES, L].
_SINKS = tl.constexpr(0)  # in reverse, so that this plane and that of text give the compact list
_TEXT = tl.constexpr(1)
_PADDING_ROWS = tl.constexpr(2)
_TEXT_ROWS = tl.constexpr(3)  # rows of text and of delimiters
_IMAGE_TILES = tl.constexpr(4)  # the first row of each tile of an image
_LOOKS_AHEAD = tl.constexpr(5)
_PADDING = tl.constexpr(6)
_PLANES = tl.constexpr(7)

_KIND_PADDING = tl.constexpr(int(TokenKind.PADDING))
_KIND_TEXT = tl.constexpr(int(TokenKind.TEXT))
_KIND_START = tl.constexpr(int(TokenKind.START))
_KIND_IMAGE = tl.constexpr(int(TokenKind.IMAGE))

_SINK = tl.constexpr(int(Pattern.SINK))
_INTRA_IMAGE = tl.constexpr(int(Pattern.INTRA_IMAGE))
_INTRA_IMAGE_SINK = tl.constexpr(int(Pattern.INTRA_IMAGE_SINK))
_DENSE = tl.constexpr(int(Pattern.DENSE))
_PATTERNS = tl.constexpr(len(Pattern))

_NO_WINDOW = torch.iinfo(torch.int32).max
_MARKED = 1024  # the tokens that a program of `_mark` handles
_LISTED = 512  # the compact keys that a program of `_tabulate` writes


def triton_tables(
    layout: PromptLayout, sinks: SinkRule, rule: DenseRule, query_start: int, tile_rows: int
) -> Tables:
    """Returns the same tables as `torch_tables`. It also waits for the device once.

    It runs on a GPU, or on the CPU if Triton's interpreter is active.
    """
    check_queries(layout, rule, query_start)
    if not layout.kind.numel():
        return torch_tables(layout, sinks, rule, query_start, tile_rows)
    with torch.cuda.device_of(layout.kind):  # launches go to the thread's current device
        return _compute(layout, sinks, rule, query_start, tile_rows)


def _compute(
    layout: PromptLayout, sinks: SinkRule, rule: DenseRule, query_start: int, tile_rows: int
) -> Tables:
    batch = layout.batch
    tokens = layout.tokens
    device = layout.device
    fields = (layout.kind, layout.first, layout.stop, layout.ordinal)
    fields = [field.contiguous() for field in fields]
    planes, integers = _PLANES.value, {"dtype": torch.int32, "device": device}
    marks = torch.empty(batch * planes * tokens + 1, **integers)
    _mark[(triton.cdiv(tokens, _MARKED), batch)](
        *fields, marks, tokens, query_start, sinks.leading, sinks.per_image,
        TILE_ROWS=tile_rows, BLOCK=_MARKED,
    )  # fmt: skip
    counts = marks.cumsum(0, dtype=torch.int32)
    ends = counts[::tokens].tolist()  # waits for the device
    sizes = [stop - start for start, stop in pairwise(ends)]
    prompts = [sizes[first : first + planes] for first in range(0, len(sizes), planes)]
    tiles = [_count_tiles(prompt, tile_rows) for prompt in prompts]
    length = max(prompt[_SINKS.value] + prompt[_TEXT.value] for prompt in prompts)
    # The list of a single prompt has the full length, so it never needs a real token as filler.
    some_real = layout.kind.argmax(1) if batch > 1 else counts
    tables = Tables(
        prompts=torch.empty(sum(tiles), **integers),
        table=torch.empty(2 * len(Pattern) + 2, sum(tiles), tile_rows, **integers),
        tiles=torch.empty(len(Pattern), sum(tiles), 8, **integers),
        compact=torch.empty(batch, length, dtype=torch.int64, device=device),
        looks_ahead=rule.bidirectional and any(prompt[_LOOKS_AHEAD.value] for prompt in prompts),
        padded=any(prompt[_PADDING.value] for prompt in prompts),
    )
    _tabulate[(max(tiles) + triton.cdiv(length, _LISTED), batch)](
        *fields, counts, some_real, tables.prompts, tables.table, tables.tiles, tables.compact,
        tokens, sum(tiles), max(tiles), length,
        min(rule.window or _NO_WINDOW, _NO_WINDOW), sinks.diagonal_block,
        TILE_ROWS=tile_rows, BLOCK=_LISTED, BIDIRECTIONAL=rule.bidirectional,
        SPARES_IMAGE=rule.window_spares_own_image,
    )  # fmt: skip
    return tables


def _count_tiles(marked: list[int], tile_rows: int) -> int:
    """Returns the number of tiles of a prompt from its marks in each plane; see `_tiles_of`."""
    padding, text = marked[_PADDING_ROWS.value], marked[_TEXT_ROWS.value]
    return -(-padding // tile_rows) + -(-text // tile_rows) + marked[_IMAGE_TILES.value]


@triton.jit(do_not_specialize=range(9))
def _mark(
    p_kind, p_first, p_stop, p_ordinal, p_marks, tokens, query_start, leading, per_image,
    TILE_ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Writes the marks of BLOCK tokens of a prompt, [PLANES, tokens], behind one leading zero."""
    prompt = tl.program_id(1).to(tl.int64)
    # [BLOCK]
    b_position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_inside = b_position < tokens
    b_place = prompt * tokens + b_position
    b_kind = tl.load(p_kind + b_place, b_inside, other=0)
    b_first = tl.load(p_first + b_place, b_inside, other=0)
    b_stop = tl.load(p_stop + b_place, b_inside, other=0)
    b_ordinal = tl.load(p_ordinal + b_place, b_inside, other=0)
    b_padding, b_text = b_kind == _KIND_PADDING, b_kind == _KIND_TEXT
    b_image, b_row = b_kind == _KIND_IMAGE, b_position >= query_start
    b_chosen = (b_ordinal < leading) | (b_position - b_first < per_image)
    b_sink = tl.where(b_image, b_chosen, ~(b_padding | b_text))  # `is_sink`
    b_rank = b_position - tl.maximum(b_first, query_start)
    p_plane = p_marks + 1 + prompt * _PLANES * tokens
    tl.store(p_marks, 0)
    tl.store(p_plane + _SINKS * tokens + tokens - 1 - b_position, b_sink.to(tl.int32), b_inside)
    p_plane += b_position
    tl.store(p_plane + _TEXT * tokens, b_text.to(tl.int32), b_inside)
    tl.store(p_plane + _PADDING_ROWS * tokens, (b_padding & b_row).to(tl.int32), b_inside)
    b_text_row = b_row & ~(b_padding | b_image)
    tl.store(p_plane + _TEXT_ROWS * tokens, b_text_row.to(tl.int32), b_inside)
    b_opens = b_image & b_row & (b_rank % TILE_ROWS == 0)
    tl.store(p_plane + _IMAGE_TILES * tokens, b_opens.to(tl.int32), b_inside)
    b_ahead = b_image & b_row & (b_stop - b_position > 1)
    tl.store(p_plane + _LOOKS_AHEAD * tokens, b_ahead.to(tl.int32), b_inside)
    tl.store(p_plane + _PADDING * tokens, b_padding.to(tl.int32), b_inside)


@triton.jit(do_not_specialize=range(16))
def _tabulate(
    p_kind, p_first, p_stop, p_ordinal, p_counts, p_some_real, p_prompts, p_table, p_tiles,
    p_compact, tokens, tiles, most_tiles, length, window, block, TILE_ROWS: tl.constexpr,
    BLOCK: tl.constexpr, BIDIRECTIONAL: tl.constexpr, SPARES_IMAGE: tl.constexpr
):  # fmt: skip
    """Writes one tile of a prompt, or BLOCK entries of its compact list."""
    number = tl.program_id(0)
    prompt = tl.program_id(1).to(tl.int64)
    p_prompt = p_counts + prompt * _PLANES * tokens
    if number >= most_tiles:
        b_place = (number - most_tiles) * BLOCK + tl.arange(0, BLOCK)
        b_key = _compact(p_prompt, b_place, tl.load(p_some_real + prompt), tokens)
        tl.store(p_compact + prompt * length + b_place, b_key, b_place < length)
    else:
        paddings, texts, images = _tiles_of(p_prompt, tokens, TILE_ROWS)
        if number < paddings + texts + images:
            tile = number.to(tl.int64)
            for _ in tl.range(0, tl.program_id(1)):  # adds the tiles of the earlier prompts
                paddings_there, texts_there, images_there = _tiles_of(p_counts, tokens, TILE_ROWS)
                tile += paddings_there + texts_there + images_there
                p_counts += _PLANES * tokens
            tl.store(p_prompts + tile, prompt.to(tl.int32))
            place = prompt * tokens
            b_row = _rows(p_prompt, p_stop + place, number, paddings, texts, tokens, TILE_ROWS)
            _write_tile(
                p_kind + place, p_first + place, p_stop + place, p_ordinal + place, p_prompt,
                p_table, p_tiles, b_row, tile, tiles.to(tl.int64), tokens, window, block, TILE_ROWS,
                BIDIRECTIONAL, SPARES_IMAGE,
            )  # fmt: skip


@triton.jit
def _tiles_of(p_prompt, tokens, TILE_ROWS: tl.constexpr):
    """Returns the numbers of tiles of padding, of text and of images of a prompt."""
    padding_from = tl.load(p_prompt + _PADDING_ROWS * tokens)
    text_from = tl.load(p_prompt + _TEXT_ROWS * tokens)
    images_from = tl.load(p_prompt + _IMAGE_TILES * tokens)
    images_to = tl.load(p_prompt + (_IMAGE_TILES + 1) * tokens)
    paddings = tl.cdiv(text_from - padding_from, TILE_ROWS)
    texts = tl.cdiv(images_from - text_from, TILE_ROWS)
    return paddings, texts, images_to - images_from


@triton.jit
def _find(p_counts, b_number, entries):
    """Returns the entry with a number of marks before it.

    It is the entry e with `p_counts[e] <= b_number < p_counts[e + 1]`, or the last entry if there
    is no such entry.
    """
    b_found = tl.zeros_like(b_number)
    while entries > 1:
        half = entries // 2
        b_found += tl.where(tl.load(p_counts + b_found + half) <= b_number, half, 0)
        entries -= half
    return b_found


@triton.jit
def _compact(p_prompt, b_place, some_real, tokens):
    """Returns the positions at some places of the compact list of a prompt."""
    start = tl.load(p_prompt)
    listed = tl.load(p_prompt + (_TEXT + 1) * tokens) - start
    b_entry = _find(p_prompt, start + b_place, 2 * tokens)
    b_key = tl.where(b_entry < tokens, tokens - 1 - b_entry, b_entry - tokens)
    return tl.where(b_place < listed, b_key, some_real)


@triton.jit
def _rows(p_prompt, p_stop, number, paddings, texts, tokens, TILE_ROWS: tl.constexpr):
    """Returns the queries of a tile of a prompt, [TILE_ROWS], and -1 where it is not full."""
    in_image = number >= paddings + texts
    plane = tl.where(number < paddings, _PADDING_ROWS, _TEXT_ROWS)
    plane = tl.where(in_image, _IMAGE_TILES, plane)
    number -= tl.where(number < paddings, 0, paddings)
    number -= tl.where(in_image, texts, 0)
    p_plane = p_prompt + plane * tokens
    b_slot = tl.arange(0, TILE_ROWS)
    # The rows of padding and text are gathered. The rows of an image follow its tile's first row.
    b_mark = tl.load(p_plane) + tl.where(in_image, number, number * TILE_ROWS + b_slot)
    b_row = _find(p_plane, b_mark, tokens) + tl.where(in_image, b_slot, 0)
    stop = tl.load(p_stop + tl.min(b_row))
    b_used = tl.where(in_image, b_row < stop, b_mark < tl.load(p_plane + tokens))
    return tl.where(b_used, b_row, -1)


@triton.jit
def _write_tile(
    p_kind, p_first, p_stop, p_ordinal, p_prompt, p_table, p_tiles, b_row, tile, tiles, tokens,
    window, block, TILE_ROWS: tl.constexpr, BIDIRECTIONAL: tl.constexpr,
    SPARES_IMAGE: tl.constexpr
):  # fmt: skip
    """Writes what the queries of a tile see, as `IntervalBuilder._table` and `_lists` do."""
    b_slot = tl.arange(0, TILE_ROWS)
    row = tl.sum(tl.where(b_slot == 0, b_row, 0))  # the first query
    kind, first = tl.load(p_kind + row), tl.load(p_first + row)
    in_image = kind == _KIND_IMAGE
    image_start = tl.maximum(first, 0)
    kind_before = tl.load(p_kind + image_start - 1, image_start > 0, other=_KIND_PADDING)
    first_real = row - tl.load(p_ordinal + row)
    # [TILE_ROWS]
    b_used = b_row >= 0
    b_near = tl.where(b_used, tl.maximum(b_row - (window - 1), 0), -1)
    b_sees = b_used & (kind != _KIND_PADDING)
    b_block = b_row - (b_row - first) % block
    b_stop, b_block_stop = b_row + 1, b_row + 1
    if BIDIRECTIONAL:
        stop = tl.load(p_stop + row)
        b_stop = tl.maximum(b_stop, stop)
        b_block_stop = tl.where(in_image, tl.minimum(b_block + block, stop), b_stop)
    b_reach = b_near
    if SPARES_IMAGE:
        b_reach = tl.where(in_image, tl.minimum(b_near, image_start), b_near)
    image = tl.maximum(first, first_real)  # outside images, all real tokens
    b_sees_start = (kind_before == _KIND_START) & (first - 1 >= b_near)
    b_image = tl.where(b_sees_start, first - 1, image)
    b_block = tl.where(in_image, b_block, first_real)

    start = tl.load(p_prompt)
    p_middle = p_prompt + _TEXT * tokens
    near = tl.minimum(tl.maximum(row - (window - 1), 0), image_start)
    none = tl.load(p_middle) - start
    text_from, text_to = tl.load(p_middle + near) - start, tl.load(p_middle + image_start) - start
    sink_from, sink_to = tl.load(p_middle - image_start) - start, tl.load(p_middle - near) - start
    p_lows, p_entries = p_table + tile * TILE_ROWS + b_slot, p_tiles + tile * 8
    _write_pattern(
        p_lows, p_entries, _SINK, tiles, b_slot, b_sees, b_reach, b_block, b_block_stop,
        text_from, text_to, sink_from, sink_to,
    )  # fmt: skip
    _write_pattern(
        p_lows, p_entries, _INTRA_IMAGE, tiles, b_slot, b_sees, b_reach, b_image, b_stop,
        text_from, text_to, none, none,
    )  # fmt: skip
    _write_pattern(
        p_lows, p_entries, _INTRA_IMAGE_SINK, tiles, b_slot, b_sees, b_reach, image, b_stop,
        text_from, text_to, sink_from, sink_to,
    )  # fmt: skip
    _write_pattern(
        p_lows, p_entries, _DENSE, tiles, b_slot, b_sees, b_reach, first_real, b_stop,
        none, none, none, none,
    )  # fmt: skip
    tl.store(p_lows + 2 * _PATTERNS * tiles * TILE_ROWS, b_near)
    tl.store(p_lows + (2 * _PATTERNS + 1) * tiles * TILE_ROWS, b_row)


@triton.jit
def _write_pattern(
    p_lows, p_entries, PATTERN: tl.constexpr, tiles, b_slot, b_sees, b_reach, b_low, b_high,
    text_from, text_to, sink_from, sink_to
):  # fmt: skip
    """Writes the ranges of a tile in one pattern, and the tile's entry for that pattern."""
    b_low = tl.where(b_sees, tl.maximum(b_low, b_reach), 0)
    b_high = tl.where(b_sees, b_high, 0)
    tl.store(p_lows + PATTERN * tiles * b_slot.shape[0], b_low)
    tl.store(p_lows + (_PATTERNS + PATTERN) * tiles * b_slot.shape[0], b_high)
    p_entries += PATTERN * tiles * 8
    tl.store(p_entries, text_from)
    tl.store(p_entries + 1, text_to)
    tl.store(p_entries + 2, sink_from)
    tl.store(p_entries + 3, sink_to)
    tl.store(p_entries + 4, tl.sum(tl.where(b_slot == 0, b_low, 0)))
    tl.store(p_entries + 5, tl.max(b_low))
    tl.store(p_entries + 6, tl.sum(tl.where(b_slot == 0, b_high, 0)))
    tl.store(p_entries + 7, tl.max(b_high))
