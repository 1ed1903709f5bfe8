"""Handlers that write every mask out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from photomask.attention.kernels import reference_attention
from photomask.attention.patterns import Pattern, SinkRule
from photomask.attention.plugin import AttentionCall, AttentionRequest

HEADS, LAYERS = 4, 3
SINKS = SinkRule(leading=2, per_image=1, diagonal_block=3)
DENSE = ((Pattern.DENSE,) * HEADS,) * LAYERS
# Every pattern in every layer, another one for each head and layer.
MIXED = tuple(
    tuple(itertools.islice(itertools.cycle(Pattern), layer, layer + HEADS))
    for layer in range(LAYERS)
)


class LiteralHandler:
    """Runs `reference_attention`, and remembers what it was asked."""

    def __init__(self, patterns: Sequence[Sequence[Pattern]] = MIXED):
        self.patterns = patterns
        self.calls: list[tuple[int, AttentionCall]] = []

    def __call__(self, request: AttentionRequest) -> Tensor:
        call = request.call
        query = request.query
        key = request.key
        self.calls.append((request.layer, call))
        assert call.query_start == key.shape[2] - query.shape[2]
        patterns = self.patterns[request.layer]
        return reference_attention(
            query, key, request.value, call.layout, patterns, SINKS, call.rule, request.scale
        )
