"""Attention with the mask written out: slow, with O(L²) memory, and literally as it is defined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, Pattern, SinkRule, visible


def reference_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PromptLayout,
    patterns: Sequence[Pattern],
    sinks: SinkRule,
    rule: DenseRule,
    scale: float,
) -> Tensor:
    """Computes `softmax(scale * Q Kᵀ + mask) V` head by head, in the dtype of the query.

    Args:
        query: the queries, [B, H, Q, D], which are the last Q tokens of the layout.
        key: the keys, [B, G, L, D]. H is a multiple of G, and head h reads key head h // (H / G).
        value: the values, [B, G, L, D].
        layout: the layout of the L keys.
        patterns: one pattern for each of the H heads.
        sinks: the rule that says which tokens are sinks.
        rule: the rule that says what a dense head sees.
        scale: the factor of the scores.

    Returns:
        The output, [B, H, Q, D]. The rows of padding are zero.
    """
    group = query.shape[1] // key.shape[1]
    query_start = layout.tokens - query.shape[2]
    masks = {pattern: visible(layout, pattern, sinks, rule, query_start) for pattern in patterns}
    heads = []
    for head, pattern in enumerate(patterns):
        scores = query[:, head] @ key[:, head // group].transpose(1, 2) * scale
        scores = scores.masked_fill(~masks[pattern], -torch.inf)
        weights = scores.softmax(-1).nan_to_num(0.0)
        heads.append(weights @ value[:, head // group])
    return torch.stack(heads, 1)
