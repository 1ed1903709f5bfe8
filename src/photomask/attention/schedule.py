"""The schedule says which keys each tile of queries visits.

It is built once for each prompt, and every layer uses it. A tile holds queries that see nearly the
same keys, so a kernel can visit the keys of a tile without a list of blocks. A new tile starts
where an image starts. The queries of text are scattered over the prompt and are packed into tiles
of their own. So are the rows of padding, which see nothing.

A tile sees one interval of each of three things:

- a contiguous range of the sequence: the own image, or everything before a text query;
- the text of the prompt, which is gathered into a **compact** list;
- the sinks that are not text, which stand before the text in the same list, in reverse.

A kernel therefore reads scattered text and sinks without the keys between them.
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
    """The tiles of a batch of prompts, on one device. `build_schedule` makes it.

    The tiles are ordered so that the longest come first. The tiles of text come before those of
    images, because no pattern shortens them. Within both, the tiles that take a dense head longest
    come first.

    Attributes:
        prompts: int32 [T], the prompt of each tile.
        rows: int32 [T, R], the positions of the queries of each tile; -1 where a tile is not full.
        low: int32 [P, T, R], the first key of a query's range for each pattern; 0 where unused.
        high: int32 [P, T, R], the position behind the last key of that range; 0 where unused.
        near: int32 [T, R], the first position whose key a query may see through the compact list.
            This is the start of its sliding window, 0 without a window, and -1 where unused.
        tiles: int32 [P, T, 8], for each pattern and tile:
            (0, 1) the start and end of the stretch of the compact list that holds text;
            (2, 3) the start and end of the stretch that holds sinks; without a window it ends where
            the stretch of text starts;
            (4, 7) the range that at least one query sees;
            (5, 6) the range that every query sees; (6) may be less than (5).
        compact: int64 [B, C], the positions in the compact list: the sinks from the last to the
            first, then the text from the first to the last, then the position of any real token.
        keys: the number of keys, L.
        query_start: the position of the first query.
        windowed: whether the layers have a sliding window.
        plainly_causal: whether a dense head sees, in every prompt, exactly the keys up to its own
            position. Then no window cuts off a key, no image is seen in both directions, and there
            is no padding.
        causal_and_ahead: whether a dense head sees, in every prompt, exactly the keys up to its own
            position and, in an image, the later tokens of that image, and there is at least one
            such token. These tokens stand between the query's own position and `high` of the dense
            pattern.
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
        """The number of prompts."""
        return self.compact.shape[0]

    @property
    def queries(self) -> int:
        """The number of queries of every prompt, including padding."""
        return self.keys - self.query_start

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.rows.device

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns the rows in the compact list of each prompt: [B, G, K, D] to [B, G, C, D]."""
        lists = [each.index_select(1, self.compact[row]) for row, each in enumerate(tensor)]
        return torch.stack(lists) if len(lists) > 1 else lists[0][None]

    def expand(self, pattern: Pattern) -> Tensor:
        """Returns the mask that the tables stand for, in O(L²) memory, for tests and people.

        Returns:
            bool [B, Q, L], equal to `visible(...)` for the arguments of `build_schedule`.
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
    """Divides the queries of a batch into tiles, and finds the keys that each tile sees.

    The function takes O(L) time and memory on the device of the layout, and waits for the device
    once. On a GPU, launching the operations takes longer than running them. Triton therefore
    computes the tables there, in few launches, if it is installed. PyTorch computes the same tables
    everywhere else.

    Args:
        layout: the layout of all keys. The queries are its last `layout.tokens - query_start`
            tokens.
        sinks: the rule that says which tokens are sinks.
        rule: the rule that says what a dense head sees in the layers that use the schedule.
        query_start: the position of the first query. It is above 0 in chunked prefill.
        tile_rows: the number of queries of a tile, a power of two and at least 16.

    Raises:
        UsageError: `query_start` is not a position of the layout, the window is empty, or
            `tile_rows` is not such a power of two.
    """
    if tile_rows < 16 or tile_rows & (tile_rows - 1):
        raise UsageError(f"tile_rows must be a power of two of at least 16, got {tile_rows}")
    compute = _choose(layout.device)
    return _put_in_order(
        compute(layout, sinks, rule, query_start, tile_rows), layout, rule, query_start
    )


@cache
def _choose(device: torch.device) -> Callable[..., Tables]:
    """Returns the function that computes tables on a device: Triton's on the GPUs it supports."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return torch_tables
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return torch_tables
    # Triton is optional and slow to import.
    from photomask.attention.triton_tables import triton_tables

    return triton_tables


def _put_in_order(
    tables: Tables, layout: PromptLayout, rule: DenseRule, query_start: int
) -> Schedule:
    """Returns a schedule of the tiles, the longest first."""
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
    """Returns the order of the tiles by their work, the most first: int64 [T]."""
    range_sizes = tiles[..., 7] - tiles[..., 4]
    dense, sparse = range_sizes[Pattern.DENSE], range_sizes[Pattern.SINK]
    beyond_any = 1 << 30
    # Tiles that no pattern shortens come before all others.
    key = torch.add(dense, dense == sparse, alpha=beyond_any)
    return key.sort(descending=True, stable=True).indices
