"""Which keys each tile of queries visits: built once a prompt, used by every layer.

A tile holds queries that see nearly the same keys, so a kernel can walk the keys of a tile without
a list of blocks. Tiles restart where an image starts. The queries of text are scattered over the
prompt and are packed into tiles of their own; so are the rows of padding, which see nothing.

What a tile sees is an interval each of three things:

- a contiguous range of the sequence: the own image, or everything before a text query;
- the text of the prompt, gathered into a **compact** list;
- the sinks that are not text, which stand before the text in the same list, in reverse.

Scattered text and sinks therefore cost a kernel only the keys that they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.attention.intervals import IntervalBuilder, count_before
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, Pattern, SinkRule
from photomask.errors import UsageError

TILE_ROWS = 128


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
            (2, 3) the stretch that holds sinks; without a window it ends where that of text starts;
            (4, 7) the range that at least one query sees;
            (5, 6) the range that every query sees; (6) may be less than (5).
        compact: int64 [B, C], the positions in the compact list: sinks from the last to the first,
            then text from the first to the last, then the position of some real token.
        keys: number of keys, L.
        query_start: position of the first query.
        windowed: whether `near` cuts anything off.
        plainly_causal: whether a dense head sees, in every prompt, exactly the keys up to its own
            position: no window cuts any off, no image is seen in both directions, and there is no
            padding.
        padded: whether there is padding.
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
    plainly_causal: bool
    padded: bool

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

    def gather(self, tensor: Tensor) -> Tensor:
        """Copies the compact list of each prompt: [B, G, K, D] to [B, G, C, D]."""
        lists = [each.index_select(1, self.compact[row]) for row, each in enumerate(tensor)]
        return torch.stack(lists) if len(lists) > 1 else lists[0][None]

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

    Takes O(L) time and memory on the device of the layout, and waits for the device once, to learn
    how many tiles and compact keys there are, and whether there is padding.

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
    cut = _Cut.of(layout, query_start, tile_rows)
    count, listed, plainly_causal, padded = _learn(builder, cut, rule)
    prompts, rows = cut.rows(count)
    seen = builder.build(prompts, rows)
    ranges = seen.ranges
    least, most = ranges[..., 0], ranges.amax(-1)  # bounds only rise within a tile
    tiles = torch.stack([*seen.lists, least[0], most[0], least[1], most[1]], -1)
    order = _longest_first(tiles)
    table = seen.table.index_select(1, order)
    low, high = table[:-2].split(len(Pattern))
    return Schedule(
        prompts=prompts[order].int(),
        rows=table[-1],
        low=low,
        high=high,
        near=table[-2],
        tiles=tiles.index_select(1, order),
        compact=builder.compact(listed),
        keys=layout.tokens,
        query_start=query_start,
        windowed=rule.window is not None,
        plainly_causal=plainly_causal,
        padded=padded,
    )


@dataclass(frozen=True)
class _Cut:
    """The queries of a batch in groups, and the groups cut into tiles.

    The queries of a prompt form groups that share no tile: padding, text, and each image. They are
    listed group by group, which needs no more than marks: an entry for every prompt, class
    (padding, text, image) and key, marked where the key is a query of that class.

    Attributes:
        layout: of all keys.
        query_start: position of the first query.
        tile_rows: queries of a tile.
        counts: int32 [3BL + 1], how many entries before each are marked; lastly all.
        tiles: int32 [3BL], how many tiles start up to each entry, itself included.
    """

    layout: PromptLayout
    query_start: int
    tile_rows: int
    counts: Tensor
    tiles: Tensor

    @classmethod
    def of(cls, layout: PromptLayout, query_start: int, tile_rows: int) -> _Cut:
        """Cuts a batch; nothing waits for the device."""
        in_image = layout.kind == TokenKind.IMAGE
        padding = layout.kind == TokenKind.PADDING
        marked = torch.stack([padding, ~(padding | in_image), in_image], 1)
        if query_start:
            marked[..., :query_start].zero_()
        counts = count_before(marked)
        rank = counts[:-1].view_as(marked)
        rank = rank - rank[..., :1]
        first = layout.first.clamp(min=query_start)
        torch.sub(layout.positions, first, out=rank[:, 2])
        starts = marked & (rank % tile_rows == 0)
        tiles = starts.flatten().cumsum(0, dtype=torch.int32)
        return cls(layout, query_start, tile_rows, counts, tiles)

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns the prompt, int64 [T], and the queries, int32 [T, R], of each of all tiles."""
        tokens, device = self.layout.tokens, self.layout.device
        numbers = torch.arange(1, count + 2, device=device, dtype=torch.int32)
        slots = torch.arange(self.tile_rows, device=device, dtype=torch.int32)
        entries = torch.searchsorted(self.tiles, numbers)
        starts = self.counts[entries]
        places = starts[:-1, None] + slots
        found = torch.searchsorted(self.counts[1:], places, right=True, out_int32=True)
        rows = (found % tokens).masked_fill_(places >= starts[1:, None], -1)
        return entries[:-1] // (3 * tokens), rows


def _learn(builder: IntervalBuilder, cut: _Cut, rule: DenseRule) -> tuple[int, int, bool, bool]:
    """Waits for the device, to learn all that the host must know.

    Returns:
        The number of tiles, the length of the longest compact list, `Schedule.plainly_causal` and
        `Schedule.padded`.
    """
    layout = cut.layout
    if not layout.kind.numel():
        return 0, 0, True, False
    numbers = [cut.tiles[-1], builder.listed.amax(), layout.kind.amin()]
    if rule.bidirectional:
        ahead = layout.stop - layout.positions > 1
        numbers.append(ahead[:, cut.query_start :].sum())
    tiles, listed, least_kind, *looks_ahead = torch.stack(numbers).tolist()
    windowed = rule.window is not None and rule.window < layout.tokens
    padded = least_kind == TokenKind.PADDING
    return tiles, listed, not (windowed or padded or any(looks_ahead)), padded


def _longest_first(tiles: Tensor) -> Tensor:
    """Orders tiles by the work they are: int64 [T]."""
    range_sizes = tiles[..., 7] - tiles[..., 4]
    dense, sparse = range_sizes[Pattern.DENSE], range_sizes[Pattern.SINK]
    never_shorter = (dense == sparse) * torch.iinfo(torch.int32).max  # int64
    return (dense + never_shorter).sort(descending=True, stable=True).indices
