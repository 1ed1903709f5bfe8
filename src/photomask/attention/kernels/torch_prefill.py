"""Sparse prefill in plain PyTorch, for CPUs and all devices without Triton.

It is as sparse as the schedule: tiles of images gather only the keys that they see. Tiles of
similar length are computed together, padded to the longest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from photomask.attention.patterns import Pattern
from photomask.attention.schedule import Schedule

ROWS_AT_ONCE = 256
"""The number of queries that share one range of keys in a call."""
PAIRS_AT_ONCE = 1 << 22
"""The largest number of pairs of query and key, with padding, in a call over gathered keys."""
KEYS_OF_PADDING = 128
"""Tiles are computed together if the shortest sees at least half as many keys as the longest, or at
most this many keys fewer."""


def torch_prefill(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    schedule: Schedule,
    patterns: Sequence[Pattern],
    scale: float,
) -> Tensor:
    """Computes attention over a schedule. The contract is that of `prefill_attention`.

    Args:
        query: the queries, [B, H, Q, D].
        key: the keys, [B, G, K, D].
        value: the values, [B, G, K, D].
        schedule: the schedule of the prompts.
        patterns: the patterns of the H heads.
        scale: the factor of the scores.

    Returns:
        The output, [B, H, Q, D].
    """
    output = torch.zeros_like(query)
    heads_of: dict[Pattern, list[int]] = {}
    for head, pattern in enumerate(patterns):
        heads_of.setdefault(pattern, []).append(head)
    dense = heads_of.pop(Pattern.DENSE, [])
    sparse = sorted(head for heads in heads_of.values() for head in heads)
    same_for_all = _same_for_all(schedule)
    for prompt in range(schedule.batch):
        tiles = schedule.prompts == prompt
        work = _Prompt(query[prompt], key[prompt], value[prompt], output[prompt], schedule, scale)
        work.attend_ranges(tiles, dense)
        work.attend_ranges(tiles & same_for_all, sparse)
        for pattern, heads in heads_of.items():
            work.attend_gathered(tiles & ~same_for_all, pattern, heads, prompt)
    return output


def _same_for_all(schedule: Schedule) -> Tensor:
    """Marks the tiles that see only one range, which is the same in every pattern: bool [T]."""
    tables = (schedule.low, schedule.high)
    same = [(table == table[Pattern.DENSE]).flatten(2).all(2).all(0) for table in tables]
    entry = schedule.tiles
    listed = (entry[..., 1] > entry[..., 0]) | (entry[..., 3] > entry[..., 2])
    return same[0] & same[1] & ~listed.any(0)


class _Prompt:
    """The tensors of one prompt: query and output [H, Q, D], key and value [G, K, D]."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        schedule: Schedule,
        scale: float,
    ) -> None:
        self._query = query
        self._key = key
        self._value = value
        self._output = output
        self._schedule, self._scale = schedule, scale
        self._group = query.shape[0] // key.shape[0]

    def attend_ranges(self, tiles: Tensor, heads: list[int]) -> None:
        """Computes the rows of some tiles, each of which sees one range of keys."""
        schedule = self._schedule
        rows = schedule.rows[tiles].flatten()
        low = schedule.low[Pattern.DENSE, tiles].flatten()
        high = schedule.high[Pattern.DENSE, tiles].flatten()
        order = rows.argsort()
        order = order[(high > low)[order]]
        if not heads or not len(order):
            return
        rows = rows[order]
        low = low[order]
        high = high[order]
        chosen = torch.tensor(heads, device=rows.device)
        query, key, value = self._of_heads(chosen)
        causal = _is_plain(rows, low, high)
        for part in torch.arange(len(rows)).split(len(rows) if causal else ROWS_AT_ONCE):
            start, stop = int(low[part].min()), int(high[part].max())
            queries = (rows[part] - schedule.query_start).long()
            mask = None if causal else _mask_of_range(low[part], high[part], query.dtype)
            self._output[chosen[:, None], queries] = scaled_dot_product_attention(
                query.index_select(1, queries)[None],
                key[None, :, start:stop],
                value[None, :, start:stop],
                attn_mask=mask,
                is_causal=causal,
                scale=self._scale,
            )[0]

    def attend_gathered(
        self, tiles: Tensor, pattern: Pattern, heads: list[int], prompt: int
    ) -> None:
        """Computes tiles that see text, sinks and a range. It gathers their keys."""
        schedule = self._schedule
        chosen = torch.tensor(heads, device=tiles.device)
        owners = chosen.div(self._group, rounding_mode="floor")
        compact = schedule.compact[prompt]
        for some in _of_similar_length(schedule, tiles, pattern):
            places, mask = _gathered(schedule, some, pattern, compact, self._query.dtype)
            rows = schedule.rows[some, : mask.shape[1]]
            queries = (rows - schedule.query_start).clamp(min=0).long()
            result = scaled_dot_product_attention(
                _gather(self._query, chosen, queries),
                _gather(self._key, owners, places),
                _gather(self._value, owners, places),
                attn_mask=mask[:, None],
                scale=self._scale,
            )
            used = rows >= 0
            self._output[chosen[:, None], queries[used]] = result.transpose(0, 1)[:, used]

    def _of_heads(self, heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns query, key and value of some query heads."""
        owners = heads.div(self._group, rounding_mode="floor")
        return (
            self._query.index_select(0, heads),
            self._key.index_select(0, owners),
            self._value.index_select(0, owners),
        )


def _gather(tensor: Tensor, heads: Tensor, places: Tensor) -> Tensor:
    """Returns some heads, [H], at some places, [N, K], of a tensor [G, L, D]: [N, H, K, D]."""
    by_place = tensor.transpose(0, 1)
    if by_place.is_contiguous():
        rows = places[:, None] * by_place.shape[1] + heads[:, None]
        found = by_place.flatten(0, 1).index_select(0, rows.flatten())
    else:
        rows = places[:, None] + heads[:, None] * tensor.shape[1]
        found = tensor.flatten(0, 1).index_select(0, rows.flatten())
    return found.view(*rows.shape, tensor.shape[2])


def _is_plain(rows: Tensor, low: Tensor, high: Tensor) -> bool:
    """Returns whether rows are consecutive and each sees the keys from the first row to itself."""
    expected = torch.arange(len(rows), device=rows.device) + rows[:1]
    return bool(((rows == expected) & (low == rows[:1]) & (high == rows + 1)).all())


def _mask_of_range(low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the mask of rows over all keys from the lowest `low` to the highest `high`."""
    places = torch.arange(int(low.min()), int(high.max()), device=low.device, dtype=low.dtype)
    return _float_mask((places >= low[:, None]) & (places < high[:, None]), dtype)


def _float_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a mask that is added to the scores: 0 where visible, -inf elsewhere."""
    return torch.zeros((), dtype=dtype, device=visible.device).where(visible, -torch.inf)


def _of_similar_length(schedule: Schedule, tiles: Tensor, pattern: Pattern) -> Iterator[Tensor]:
    """Yields the numbers of the tiles that are computed together, an int64 tensor each time."""
    entry = schedule.tiles[pattern]
    sizes = (entry[:, 1::2] - entry[:, ::2])[:, :2].sum(1) + entry[:, 7] - entry[:, 4]
    sizes = torch.where(tiles, sizes, 0)
    order = sizes.argsort(descending=True)
    lengths = sizes[order].tolist()
    start = 0
    while start < len(lengths) and lengths[start] > 0:
        longest = lengths[start]
        shortest = max(1, min(longest // 2, longest - KEYS_OF_PADDING))
        limit = start + max(1, PAIRS_AT_ONCE // (longest * schedule.rows.shape[1]))
        stop = start + 1
        while stop < min(len(lengths), limit) and lengths[stop] >= shortest:
            stop += 1
        yield order[start:stop]
        start = stop


def _gathered(
    schedule: Schedule, tiles: Tensor, pattern: Pattern, compact: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns the keys of some tiles, first those of their ranges, then text and sinks.

    Returns:
        The positions of the keys, int64 [N, K], padded with keys that a row of the tile sees.
        The mask that is added to the scores, dtype [N, R, K]. It hides the padding, and R is cut to
        the rows that are in use.
    """
    entry = schedule.tiles[pattern, tiles].long()[:, :, None]
    count = int((schedule.rows[tiles] >= 0).sum(1).max())
    ranges = entry[:, 7] - entry[:, 4]
    number = torch.arange(int(ranges.max()), device=tiles.device)
    in_range = torch.minimum(entry[:, 4] + number, entry[:, 7] - 1)
    place = (entry[:, 4] + number).int()[:, None]
    visible = place >= schedule.low[pattern, tiles, :count, None]
    visible &= place < schedule.high[pattern, tiles, :count, None]

    texts = entry[:, 1] - entry[:, 0]
    listed = texts + entry[:, 3] - entry[:, 2]
    number = torch.arange(int(listed.max()), device=tiles.device)
    slot = torch.where(number < texts, entry[:, 0], entry[:, 2] - texts) + number
    inside = number < listed
    in_list = compact[slot * inside]
    in_list = torch.where(inside, in_list, entry[:, 4])
    inside = inside[:, None]
    if schedule.windowed:
        inside = inside & (in_list[:, None] >= schedule.near[tiles, :count, None])
    masks = [_float_mask(visible, dtype), _float_mask(inside, dtype).expand(-1, count, -1)]
    return torch.cat([in_range, in_list], 1), torch.cat(masks, 2)
