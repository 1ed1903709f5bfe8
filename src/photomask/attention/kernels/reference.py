"""Attention with the mask written out: slow, O(L²) memory, and right by construction."""

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
        query: [B, H, Q, D], the last Q tokens of the layout.
        key: [B, G, L, D]; H is a multiple of G, and head h reads the keys of h // (H / G).
        value: [B, G, L, D].
        layout: of the L keys.
        patterns: one for each of the H heads.
        sinks: which tokens are sinks.
        rule: what a dense head sees.
        scale: factor of the scores.

    Returns:
        [B, H, Q, D]; the rows of padding are zero.
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
