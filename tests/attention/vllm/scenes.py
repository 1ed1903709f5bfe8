"""Batches of requests over a paged cache, and their attention written out literally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tests.attention.tiny_models import tiny_model
from torch import Tensor

from photomask.attention.families import family_of
from photomask.attention.patterns import DenseRule, Pattern, SinkRule, visible
from photomask.attention.vllm.spans import layout_of_spans

HEADS = 4
KEY_HEADS = 2
SIZE = 8
PAGE = 16
SINKS = SinkRule(leading=2, diagonal_block=4)
SCALE = SIZE**-0.5


@dataclass(frozen=True)
class Request:
    """A request of a batch: how many tokens it has, how many of them are queries, its images."""

    length: int
    queries: int
    spans: tuple[tuple[int, int], ...] = ()


MIXED = (
    Request(40, 1),  # decodes, without images
    Request(45, 45, ((3, 14), (17, 40))),  # a whole prompt
    Request(50, 1, ((3, 20),)),  # decodes behind its image
    Request(33, 12, ((2, 12), (15, 40))),  # a chunk that starts and ends inside an image
    Request(20, 20),  # text
    Request(48, 9, ((4, 30),)),  # the text behind an image
)
"""One batch with every kind of request."""


@dataclass(frozen=True)
class Scene:
    """A batch: queries [T, H, D], a paged cache [N, S, G, D], and where each request lies."""

    requests: tuple[Request, ...]
    query: Tensor
    key_cache: Tensor
    value_cache: Tensor
    block_table: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def query_starts(self) -> list[int]:
        """Where the queries of each request start, and the number of all."""
        starts = [0]
        for request in self.requests:
            starts.append(starts[-1] + request.queries)
        return starts

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each request."""
        return [request.length for request in self.requests]

    @property
    def spans(self) -> dict[int, tuple[tuple[int, int], ...]]:
        """The image spans of each request."""
        return {row: request.spans for row, request in enumerate(self.requests)}

    def kv_cache(self, version: str) -> Tensor:
        """The cache in the form of a version of vLLM."""
        if version == "0.22.1":
            return torch.stack([self.key_cache, self.value_cache])
        return torch.cat([self.key_cache, self.value_cache], -1).transpose(1, 2).contiguous()

    def literal(
        self, patterns: Sequence[Pattern], rule: DenseRule, family: str = "qwen2_5_vl"
    ) -> Tensor:
        """Computes all requests by the written-out masks of their heads, in float64."""
        found = torch.empty(self.query.shape, dtype=torch.float64)
        for row, request in enumerate(self.requests):
            rows = slice(self.query_starts[row], self.query_starts[row + 1])
            layout = layout_of_spans(
                family_of(tiny_model(family).config), request.spans, request.length
            )
            for head, pattern in enumerate(patterns):
                start = request.length - request.queries
                mask = visible(layout, pattern, SINKS, rule, start)[0]
                owner = head // (len(patterns) // self.keys[row].shape[1])
                key, value = self.keys[row][:, owner], self.values[row][:, owner]
                scores = SCALE * self.query[rows, head].double() @ key.double().T
                weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
                found[rows, head] = weights @ value.double()
        return found


def scene_of(requests: Sequence[Request], *, heads: int = HEADS, seed: int = 0) -> Scene:
    """Returns a batch with random tensors, whose pages lie in random order.

    Pages that no request has, and the places behind its last token, hold NaN.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    pages = [-(-request.length // PAGE) for request in requests]
    order = torch.randperm(sum(pages) + 3, generator=generator).tolist()
    shape = (len(order), PAGE, KEY_HEADS, SIZE)
    key_cache, value_cache = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    table = torch.full((len(requests), max(pages) + 1), order[0], dtype=torch.int32)
    keys, values = [], []
    free = iter(order)
    for row, request in enumerate(requests):
        own = [next(free) for _ in range(pages[row])]
        table[row, : pages[row]] = torch.tensor(own)
        keys.append(random(request.length, KEY_HEADS, SIZE))
        values.append(random(request.length, KEY_HEADS, SIZE))
        for place in range(request.length):
            key_cache[own[place // PAGE], place % PAGE] = keys[row][place]
            value_cache[own[place // PAGE], place % PAGE] = values[row][place]
    query = random(sum(request.queries for request in requests), heads, SIZE)
    return Scene(tuple(requests), query, key_cache, value_cache, table, tuple(keys), tuple(values))
