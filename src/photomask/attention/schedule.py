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

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, Pattern, SinkRule
from photomask.attention.tables import Tables, torch_tables
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
        causal_and_ahead: whether a dense head sees, in every prompt, exactly the keys up to its own
            position and, in an image, the later tokens of that image; and there is such a token. It
            stands from behind the query's own position to `high` of the dense pattern.
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
    causal_and_ahead: bool
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

    Takes O(L) time and memory on the device of the layout, and waits for the device once. A GPU is
    sooner done than the host can start what it does, so there Triton computes the tables, if it is
    installed, and elsewhere PyTorch; the tables are the same.

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
    compute = _choose(layout.device)
    return _put_in_order(
        compute(layout, sinks, rule, query_start, tile_rows), layout, rule, query_start
    )


@cache
def _choose(device: torch.device) -> Callable[..., Tables]:
    """Returns who computes tables on a device: Triton on the GPUs it compiles for."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return torch_tables
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return torch_tables
    from photomask.attention.triton_tables import triton_tables  # optional, and slow

    return triton_tables


def _put_in_order(
    tables: Tables, layout: PromptLayout, rule: DenseRule, query_start: int
) -> Schedule:
    """Makes a schedule, its tiles longest first."""
    order = _longest_first(tables.tiles)
    table = tables.table.index_select(1, order)
    low, high = table[:-2].split(len(Pattern))
    windowed = rule.window is not None and rule.window < layout.tokens
    causal = not (windowed or tables.padded)
    return Schedule(
        prompts=tables.prompts.index_select(0, order),
        rows=table[-1],
        low=low,
        high=high,
        near=table[-2],
        tiles=tables.tiles.index_select(1, order),
        compact=tables.compact,
        keys=layout.tokens,
        query_start=query_start,
        windowed=rule.window is not None,
        plainly_causal=causal and not tables.looks_ahead,
        causal_and_ahead=causal and tables.looks_ahead,
        padded=tables.padded,
    )


def _longest_first(tiles: Tensor) -> Tensor:
    """Orders tiles by the work they are: int64 [T]."""
    range_sizes = tiles[..., 7] - tiles[..., 4]
    dense, sparse = range_sizes[Pattern.DENSE], range_sizes[Pattern.SINK]
    beyond_any = 1 << 30
    key = torch.add(dense, dense == sparse, alpha=beyond_any)  # those that no pattern shortens
    return key.sort(descending=True, stable=True).indices
