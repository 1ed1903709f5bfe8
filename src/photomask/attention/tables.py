"""The tiles of a schedule before they are put in order, computed by PyTorch.

This module defines the tables, and it computes them on every device without Triton.
`photomask.attention.triton_tables` computes the same tables in fewer launches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.attention.intervals import IntervalBuilder, count_before
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, SinkRule


@dataclass(frozen=True)
class Tables:
    """The tiles of a batch, prompt by prompt: tiles of padding, of text, and of each image.

    Attributes:
        prompts: int32 [T], the prompt of each tile.
        table: int32 [2P + 2, T, R], as in `Intervals`: for each pattern the first key of a query's
            range, then for each pattern the position behind the last key, then `near`, then the
            queries themselves.
        tiles: int32 [P, T, 8], as in `Schedule`.
        compact: int64 [B, C], as in `Schedule`.
        looks_ahead: whether a query of a dense head sees a key behind its own position.
        padded: whether there is padding.
    """

    prompts: Tensor
    table: Tensor
    tiles: Tensor
    compact: Tensor
    looks_ahead: bool
    padded: bool


def torch_tables(
    layout: PromptLayout, sinks: SinkRule, rule: DenseRule, query_start: int, tile_rows: int
) -> Tables:
    """Divides the queries of a batch into tiles, and finds the keys that each tile sees.

    The function takes O(L) time and memory on the device of the layout. It waits for the device
    once, to learn how many tiles and compact keys there are and whether there is padding.

    Args:
        layout: the layout of all keys. The queries are its last `layout.tokens - query_start`
            tokens.
        sinks: the rule that says which tokens are sinks.
        rule: the rule that says what a dense head would see.
        query_start: the position of the first query.
        tile_rows: the number of queries of a tile.

    Raises:
        UsageError: `query_start` is not a position of the layout, or the window is empty.
    """
    builder = IntervalBuilder(layout, sinks, rule, query_start)
    cut = _Cut.of(layout, query_start, tile_rows)
    count, listed, looks_ahead, padded = _learn(builder, cut, rule)
    prompts, rows = cut.rows(count)
    seen = builder.build(prompts, rows)
    ranges = seen.ranges
    least, most = ranges[..., 0], ranges.amax(-1)  # bounds only rise within a tile
    return Tables(
        prompts=prompts.int(),
        table=seen.table,
        tiles=torch.stack([*seen.lists, least[0], most[0], least[1], most[1]], -1),
        compact=builder.compact(listed),
        looks_ahead=looks_ahead,
        padded=padded,
    )


@dataclass(frozen=True)
class _Cut:
    """The queries of a batch in groups, and the groups divided into tiles.

    The queries of a prompt form groups that share no tile: padding, text, and each image. The
    groups are listed by marks. There is an entry for every prompt, class (padding, text, image) and
    key, and it is marked if the key is a query of that class.

    Attributes:
        layout: the layout of all keys.
        query_start: the position of the first query.
        tile_rows: the number of queries of a tile.
        counts: int32 [3BL + 1], the number of marked entries before each entry, and lastly the
            number of all.
        tiles: int32 [3BL], the number of tiles that start at or before each entry.
    """

    layout: PromptLayout
    query_start: int
    tile_rows: int
    counts: Tensor
    tiles: Tensor

    @classmethod
    def of(cls, layout: PromptLayout, query_start: int, tile_rows: int) -> _Cut:
        """Divides a batch. It does not wait for the device."""
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
        """Returns the prompt, int64 [T], and the queries, int32 [T, R], of all `count` tiles."""
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
    """Returns the facts that the host must know. It waits for the device.

    Returns:
        The number of tiles, the length of the longest compact list, `Tables.looks_ahead` and
        `Tables.padded`.
    """
    layout = cut.layout
    if not layout.kind.numel():
        return 0, 0, False, False
    numbers = [cut.tiles[-1], builder.listed.amax(), layout.kind.amin()]
    if rule.bidirectional:
        ahead = layout.stop - layout.positions > 1
        numbers.append(ahead[:, cut.query_start :].sum())
    tiles, listed, least_kind, *looks_ahead = torch.stack(numbers).tolist()
    return tiles, listed, any(looks_ahead), least_kind == TokenKind.PADDING
