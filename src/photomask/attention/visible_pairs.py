"""How much of attention a pattern leaves: the number of visible pairs, without the mask."""

from __future__ import annotations

import torch
from torch import Tensor

from photomask.attention.intervals import IntervalBuilder
from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, Pattern, SinkRule


def visible_pairs(
    layout: PromptLayout,
    pattern: Pattern,
    sinks: SinkRule,
    rule: DenseRule,
    query_start: int = 0,
) -> Tensor:
    """Counts the pairs of a query and a key it sees, in O(L) time and memory.

    Equals `visible(...).sum((1, 2))`. Divided by the count of `Pattern.DENSE`, it is the density
    of a pattern.

    Args:
        layout: of all keys.
        pattern: of the head.
        sinks: which tokens are sinks.
        rule: what a dense head would see.
        query_start: the first query is the token with this position among the keys.

    Returns:
        int64 [B], for each prompt of the batch.

    Raises:
        UsageError: `query_start` is no position of the layout, or the window is empty.
    """
    return visible_pairs_by_query(layout, pattern, sinks, rule, query_start).sum(1)


def visible_pairs_by_query(
    layout: PromptLayout,
    pattern: Pattern,
    sinks: SinkRule,
    rule: DenseRule,
    query_start: int = 0,
) -> Tensor:
    """Counts the keys that each query sees; equals `visible(...).sum(2)`.

    Args:
        layout: see `visible_pairs`, as for the others.
        pattern: see there.
        sinks: see there.
        rule: see there.
        query_start: see there.

    Returns:
        int64 [B, queries].

    Raises:
        UsageError: `query_start` is no position of the layout, or the window is empty.
    """
    builder = IntervalBuilder(layout, sinks, rule, query_start)
    batch, queries = layout.batch, layout.tokens - query_start
    prompts = torch.arange(batch, device=layout.device).repeat_interleave(queries)
    rows = layout.positions[query_start:].repeat(batch)
    seen = builder.build(prompts, rows[:, None])  # every query is a group
    low, high = seen.ranges[:, pattern, :, 0]
    text_low, text_high, sink_low, sink_high = seen.lists[:, pattern]
    sizes = (high - low) + (text_high - text_low) + (sink_high - sink_low)
    return sizes.view(batch, queries).to(torch.int64)
