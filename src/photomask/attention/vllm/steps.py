"""One step of the server: which of its requests compute rows of images, and what they see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.attention.families import Family
from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule
from photomask.attention.plugin import AttentionCall
from photomask.attention.vllm.spans import Span, layout_of_spans


class ImageRequest:
    """A request of a step whose chunk of queries holds tokens of images.

    Attributes:
        row: the number of the request in the batch.
        rows: the places of its queries among the queries of the step.
        layout: the layout of all its tokens so far. The queries are the last ones.
        query_start: the position of the first query. It is above 0 if earlier tokens are in the
            cache, because the prompt comes in chunks, or shares a prefix with another one.
        reported: whether a log has reported the request.
    """

    def __init__(self, row: int, rows: slice, layout: PromptLayout, query_start: int):
        """Describes a request."""
        self.row = row
        self.rows = rows
        self.layout = layout
        self.query_start = query_start
        self.reported = False
        self._calls: dict[DenseRule, AttentionCall] = {}

    def call(self, rule: DenseRule) -> AttentionCall:
        """Returns what all layers with a rule share. They also share its schedule."""
        if rule not in self._calls:
            self._calls[rule] = AttentionCall(self.layout, self.query_start, rule)
        return self._calls[rule]


@dataclass(frozen=True, eq=False)
class OtherRequests:
    """The requests of a step that the server's own attention computes.

    Attributes:
        rows: int64 [R], the numbers of the requests in the batch.
        tokens: int64 [T], the places of their queries among the queries of the step.
        query_starts: int32 [R + 1], where the queries of each request start among the T.
        longest_query: the most queries that one of them has.
        longest: the most tokens that one of them has, queries included.
    """

    rows: Tensor
    tokens: Tensor
    query_starts: Tensor
    longest_query: int
    longest: int


@dataclass(frozen=True, eq=False)
class Step:
    """The requests of a step, divided by who computes their attention.

    Attributes:
        images: the requests whose chunks hold tokens of images.
        others: all other requests; None if there are none.
    """

    images: tuple[ImageRequest, ...]
    others: OtherRequests | None


def divide_step(
    family: Family,
    query_starts: Sequence[int],
    lengths: Sequence[int],
    spans: Mapping[int, Sequence[Span]],
    device: torch.device,
) -> Step | None:
    """Divides the requests of a step; None if no chunk holds tokens of images.

    Args:
        family: the family of the model.
        query_starts: where the queries of each request start among the queries of the step, and
            behind them the number of all queries.
        lengths: how many tokens each request has, queries included. Rows without queries, which pad
            the batch, may hold any number.
        spans: the images and video segments of each request, by its number in the batch.
        device: the device of the result.

    Raises:
        LayoutError: the spans of a request do not fit the family.
    """
    images: list[ImageRequest] = []
    others: list[int] = []
    for row, length in enumerate(lengths):
        rows = slice(query_starts[row], query_starts[row + 1])
        queries = rows.stop - rows.start
        start = length - queries
        if any(first < length and stop > start for first, stop in spans.get(row, ())) and queries:
            layout = layout_of_spans(family, spans[row], length, device)
            images.append(ImageRequest(row, rows, layout, start))
        elif queries:
            others.append(row)
    if not images:
        return None
    return Step(tuple(images), _others(others, query_starts, lengths, device))


def _others(
    rows: Sequence[int], query_starts: Sequence[int], lengths: Sequence[int], device: torch.device
) -> OtherRequests | None:
    """Returns the requests that the server's own attention computes, or None if there are none."""
    if not rows:
        return None
    places = [range(query_starts[row], query_starts[row + 1]) for row in rows]
    sizes = torch.tensor([len(each) for each in places])
    return OtherRequests(
        rows=torch.tensor(rows, device=device),
        tokens=torch.cat([torch.arange(each.start, each.stop) for each in places]).to(device),
        query_starts=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).to(device, torch.int32),
        longest_query=int(sizes.max()),
        longest=max(lengths[row] for row in rows),
    )
