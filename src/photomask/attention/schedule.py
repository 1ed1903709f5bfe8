"""Which keys each tile of queries visits: built once a prompt, used by every layer.

A tile holds queries that see nearly the same keys, so a kernel can walk the keys of a tile without
a list of blocks. Tiles restart where an image starts. The queries of text are scattered over the
prompt and are packed into tiles of their own; so are the rows of padding, which see nothing.

What a tile sees is an interval each of three things:

- a contiguous range of the sequence: the own image, or everything before a text query;
- the text of the prompt, gathered into a **compact** list;
- the sinks that are not text, which stand behind the text in the same list.

Scattered text and sinks therefore cost a kernel only the keys that they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.attention.intervals import IntervalBuilder, Intervals
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, Pattern, SinkRule
from photomask.errors import UsageError

TILE_ROWS = 128
_COLUMNS = tuple(field.name for field in dataclasses.fields(Intervals))


@dataclass(frozen=True)
class Schedule:
    """The tiles of a batch of prompts, on one device; made by `build_schedule`.

    Tiles stand longest first: first those of text, whose length no pattern shortens, then those
    of images, and in both the tiles that a dense head works on longest come first.

    Attributes:
        prompts: int32 [T], the prompt of each tile.
        rows: int32 [T, R], the queries of each tile as positions; -1 where a tile is not full.
        low: int32 [P, T, R], for each pattern the first key of a query's range; 0 where unused.
        high: int32 [P, T, R], the position behind the last key of the range; 0 where unused.
        near: int32 [T, R], the first position whose key a query may see through the compact list:
            where its sliding window starts, 0 without a window; -1 where unused.
        tiles: int32 [P, T, 8], for each pattern and tile:
            (0, 1) the stretch of the compact list that holds text, from and to;
            (2, 3) the stretch that holds sinks;
            (4, 7) the range that at least one query sees;
            (5, 6) the range that every query sees; (6) may be less than (5).
        compact: int64 [B, C], the positions in the compact list: text, then sinks, both in the
            order of the sequence, then the position of some real token.
        keys: number of keys, L.
        query_start: position of the first query.
        windowed: whether `near` cuts anything off.
    """

    prompts: Tensor
    rows: Tensor
    low: Tensor
    high: Tensor
    near: Tensor
    tiles: Tensor
    compact: Tensor
    keys: int
    query_start: int
    windowed: bool

    @property
    def batch(self) -> int:
        """Number of prompts."""
        return self.compact.shape[0]

    @property
    def queries(self) -> int:
        """Queries of every prompt, padding included."""
        return self.keys - self.query_start

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.rows.device

    def expand(self, pattern: Pattern) -> Tensor:
        """Writes out the mask that the table stands for, in O(L²) memory: for tests and people.

        Returns:
            bool [B, Q, L], equal to `visible(...)` of what the schedule was built from.
        """
        mask = torch.zeros(self.batch, self.queries, self.keys, dtype=torch.bool)
        compact = self.compact.cpu()
        for tile, prompt in enumerate(self.prompts.tolist()):
            entry = self.tiles[pattern, tile].tolist()
            listed = [*compact[prompt, entry[0] : entry[1]], *compact[prompt, entry[2] : entry[3]]]
            for slot, row in enumerate(self.rows[tile].tolist()):
                if row < 0:
                    continue
                visible = mask[prompt, row - self.query_start]
                visible[self.low[pattern, tile, slot] : self.high[pattern, tile, slot]] = True
                for position in listed:
                    visible[position] |= bool(position >= self.near[tile, slot])
        return mask.to(self.device)


def build_schedule(
    layout: PromptLayout,
    sinks: SinkRule,
    rule: DenseRule,
    query_start: int = 0,
    *,
    tile_rows: int = TILE_ROWS,
) -> Schedule:
    """Cuts the queries of a batch into tiles and notes what each of them sees.

    Takes O(L) time and memory on the device of the layout, and waits for the device three times,
    to learn how many images, tiles and compact keys there are.

    Args:
        layout: of all keys; the queries are its last `layout.tokens - query_start` tokens.
        sinks: which tokens are sinks.
        rule: what a dense head of the layers sees that will use the schedule.
        query_start: position of the first query; above 0 in chunked prefill.
        tile_rows: queries of a tile; a power of two, at least 16.

    Raises:
        UsageError: `query_start` is no position of the layout, the window is empty, or
            `tile_rows` is no such power.
    """
    if tile_rows < 16 or tile_rows & (tile_rows - 1):
        raise UsageError(f"tile_rows must be a power of two of at least 16, got {tile_rows}")
    builder = IntervalBuilder(layout, sinks, rule, query_start)
    placement = _place_rows(layout, query_start, tile_rows)
    numbers = torch.arange(layout.batch, device=layout.device, dtype=torch.int32)
    positions = layout.positions[query_start:]
    shared = [positions.expand_as(placement.where), builder.near, numbers[:, None]]
    rows, near, prompts = placement.spread(shared, empty=-1)
    prompts = prompts.amax(1)
    compact, texts = _compact(builder, layout)
    found = [builder.build(pattern) for pattern in Pattern]
    columns = [getattr(each, name) for each in found for name in _COLUMNS]
    spread = placement.spread(columns, empty=0).unflatten(0, (len(found), len(_COLUMNS)))
    tiles = _tiles(spread, rows >= 0, texts[prompts.long()])
    order = _longest_first(tiles)
    return Schedule(
        prompts=prompts[order],
        rows=rows[order],
        low=spread[:, 0].index_select(1, order),
        high=spread[:, 1].index_select(1, order),
        near=near[order],
        tiles=tiles.index_select(1, order),
        compact=compact,
        keys=layout.tokens,
        query_start=query_start,
        windowed=rule.window is not None,
    )


@dataclass(frozen=True)
class _Placement:
    """Where every query went: int64 [B, Q], tile * tile_rows + slot."""

    where: Tensor
    tiles: int
    tile_rows: int

    def spread(self, columns: Sequence[Tensor], empty: int) -> Tensor:
        """Moves N columns of values, int32 that broadcast to [B, Q], into tiles: [N, T, R]."""
        values = torch.stack([column.expand_as(self.where) for column in columns]).flatten(1)
        slots = torch.full(
            (len(columns), self.tiles * self.tile_rows),
            empty,
            dtype=torch.int32,
            device=values.device,
        )
        slots[:, self.where.flatten()] = values
        return slots.unflatten(1, (self.tiles, self.tile_rows))


def _place_rows(layout: PromptLayout, query_start: int, tile_rows: int) -> _Placement:
    """Gives every query its tile and slot.

    The rows of a prompt form groups that share no tile: padding, text, and each image.
    """
    kind, image = layout.kind[:, query_start:], layout.image[:, query_start:].long()
    if not kind.numel():
        return _Placement(image, 0, tile_rows)
    in_image = kind == TokenKind.IMAGE
    padding = kind == TokenKind.PADDING
    text = ~in_image & ~padding
    images = int(image.max()) + 1  # waits for the device
    group = torch.where(in_image, image + 2, text.long())
    rank = torch.where(text, text.cumsum(1), padding.cumsum(1)) - 1
    first = layout.first[:, query_start:].clamp(min=query_start)
    rank = torch.where(in_image, layout.positions[query_start:] - first, rank)
    sizes = torch.zeros(layout.batch, images + 2, dtype=torch.int64, device=layout.device)
    sizes.scatter_add_(1, group, torch.ones_like(group))
    tiles = (sizes + tile_rows - 1).div(tile_rows, rounding_mode="floor").flatten()
    last = tiles.cumsum(0)
    first_tile = (last - tiles).view_as(sizes).gather(1, group)
    where = first_tile * tile_rows + rank
    return _Placement(where, int(last[-1]), tile_rows)  # waits for the device


def _compact(builder: IntervalBuilder, layout: PromptLayout) -> tuple[Tensor, Tensor]:
    """Lists the positions of text and then of sinks: int64 [B, C]; and counts the texts: [B]."""
    text, sink = builder.text, builder.sink
    texts, sinks = text.sum(1, dtype=torch.int32), sink.sum(1, dtype=torch.int32)
    length = int((texts + sinks).max()) if layout.batch else 0  # waits for the device
    slot = torch.where(text, text.cumsum(1), texts[:, None] + sink.cumsum(1)) - 1
    slot = torch.where(text | sink, slot, length)
    real = (layout.kind != TokenKind.PADDING).to(torch.int8)
    some_real = real.argmax(1, keepdim=True) if layout.tokens else slot.new_zeros(layout.batch, 1)
    compact = some_real.expand(-1, length + 1).contiguous()
    compact.scatter_(1, slot, layout.positions.long().expand_as(slot))
    return compact[:, :length].contiguous(), texts


def _tiles(spread: Tensor, used: Tensor, texts: Tensor) -> Tensor:
    """Sums up what the rows of each tile see: int32 [P, T, 8], see `Schedule.tiles`.

    Args:
        spread: int32 [P, 6, T, R], the intervals of every row. A tile mixes no image rows with
            others, so all of its rows see some of a list or none does.
        used: bool [T, R], the slots that hold a row.
        texts: int32 [T], how much text the prompt of each tile has.
    """
    huge = torch.iinfo(torch.int32).max
    least = torch.where(used, spread, huge).amin(-1).unbind(1)
    most = spread.amax(-1).unbind(1)
    low, high, text_low, text_high, sink_low, sink_high = range(len(_COLUMNS))
    columns = (
        least[text_low],
        most[text_high],
        least[sink_low] + texts,
        most[sink_high] + texts,
        least[low],
        most[low],
        least[high],
        most[high],
    )
    return torch.stack(columns, -1)


def _longest_first(tiles: Tensor) -> Tensor:
    """Orders tiles by the work they are: int64 [T]."""
    range_sizes = (tiles[..., 7] - tiles[..., 4]).long()
    dense, sparse = range_sizes[Pattern.DENSE], range_sizes[Pattern.SINK]
    never_shorter = (dense == sparse).long() * torch.iinfo(torch.int32).max
    return (dense + never_shorter).sort(descending=True, stable=True).indices
