"""Counts the pairs of query and key that are visible in a pattern, without making the mask."""

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
    """Returns the number of visible pairs of query and key, in O(L) time and memory.

    The result equals `visible(...).sum((1, 2))`. Divided by the number of `Pattern.DENSE`, it is
    the density of a pattern.

    Args:
        layout: the layout of all keys.
        pattern: the pattern of the head.
        sinks: the rule that says which tokens are sinks.
        rule: the rule that says what a dense head would see.
        query_start: the position of the first query among the keys.

    Returns:
        int64 [B], the number for each prompt of the batch.

    Raises:
        UsageError: `query_start` is not a position of the layout, or the window is empty.
    """
    return visible_pairs_by_query(layout, pattern, sinks, rule, query_start).sum(1)


def visible_pairs_by_query(
    layout: PromptLayout,
    pattern: Pattern,
    sinks: SinkRule,
    rule: DenseRule,
    query_start: int = 0,
) -> Tensor:
    """Returns the number of keys that each query sees. It equals `visible(...).sum(2)`.

    Args:
        layout: the layout of all keys.
        pattern: the pattern of the head.
        sinks: the rule that says which tokens are sinks.
        rule: the rule that says what a dense head would see.
        query_start: the position of the first query among the keys.

    Returns:
        int64 [B, queries].

    Raises:
        UsageError: `query_start` is not a position of the layout, or the window is empty.
    """
    builder = IntervalBuilder(layout, sinks, rule, query_start)
    batch, queries = layout.batch, layout.tokens - query_start
    prompts = torch.arange(batch, device=layout.device).repeat_interleave(queries)
    rows = layout.positions[query_start:].repeat(batch)
    seen = builder.build(prompts, rows[:, None])  # every query is a group of its own
    low, high = seen.ranges[:, pattern, :, 0]
    text_low, text_high, sink_low, sink_high = seen.lists[:, pattern]
    sizes = (high - low) + (text_high - text_low) + (sink_high - sink_low)
    return sizes.view(batch, queries).to(torch.int64)
