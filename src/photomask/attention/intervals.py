"""Finds the keys that queries see, as three intervals. Schedules and counts are made from them.

A query sees one contiguous range of the sequence, and stretches of two lists: the text of its
prompt, and the sinks that are not text. Both lists form the **compact** list of the prompt: first
the sinks from the last to the first, then the text from the first to the last. The text and sinks
before an image are therefore one stretch around the middle of the list.

On a GPU, the launch of an operation costs more than its work. All patterns are therefore computed
at once, and the common facts of a group of queries are looked up once for the group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, Pattern, SinkRule, is_sink
from photomask.errors import UsageError


@dataclass(frozen=True)
class Intervals:
    """The keys that N groups of R queries see in each of the P patterns.

    Attributes:
        table: int32 [2P + 2, N, R], one tensor, so that groups can be reordered at once. It holds
            (1) for each pattern, the position of the first key of a query's range;
            (2) for each pattern, the position behind the last key of the range;
            (3) the first position in the query's window, 0 without a window;
            (4) the query's own position.
            For padding, and where a group is not full, (1) and (2) are 0. Where a group is not
            full, (3) and (4) are -1.
        lists: int32 [4, P, N], the stretches of the compact list that the first query of a group
            sees: start and end of the text, then start and end of the sinks. The windows of the
            other queries may contain less of them.
    """

    table: Tensor
    lists: Tensor

    @property
    def ranges(self) -> Tensor:
        """The first key of each range and the one behind the last, int32 [2, P, N, R]."""
        return self.table[:-2].unflatten(0, (2, len(Pattern)))


class IntervalBuilder:
    """Finds the intervals of the queries of one layout.

    Attributes:
        listed: int32 [B], the length of the compact list of each prompt.
    """

    def __init__(
        self, layout: PromptLayout, sinks: SinkRule, rule: DenseRule, query_start: int = 0
    ) -> None:
        """Counts text and sinks in the layout. It does not wait for the device.

        Args:
            layout: the layout of all keys.
            sinks: the rule that says which tokens are sinks.
            rule: the rule that says what a dense head would see.
            query_start: the position of the first query among the keys.

        Raises:
            UsageError: `query_start` is not a position of the layout, or the window is empty.
        """
        check_queries(layout, rule, query_start)
        self._layout = layout
        self._sinks = sinks
        self._rule = rule
        text, sink = layout.kind == TokenKind.TEXT, is_sink(layout, sinks)
        listed = torch.stack([sink.flip(1), text], 1)
        self.listed = listed.sum((1, 2), dtype=torch.int32)
        self._counts = count_before(listed)
        self._starts = self._counts[: -1 : 2 * layout.tokens or 1]  # of the list of each prompt

    def compact(self, length: int) -> Tensor:
        """Returns the compact lists.

        Args:
            length: the length of the longest list.

        Returns:
            int64 [B, length], the positions of the sinks, then of the text, and then, if a list is
            shorter, the position of any real token.
        """
        layout = self._layout
        if not length:
            return torch.empty(layout.batch, 0, dtype=torch.int64, device=layout.device)
        places = layout.positions[:length]
        found = torch.searchsorted(self._counts[1:], self._starts[:, None] + places, right=True)
        found = found % (2 * layout.tokens) - layout.tokens
        positions = torch.where(found < 0, -1 - found, found)
        if layout.batch == 1:
            return positions
        some_real = layout.kind.argmax(1, keepdim=True)  # padding is the least kind
        return torch.where(places < self.listed[:, None], positions, some_real)

    def build(self, prompts: Tensor, rows: Tensor) -> Intervals:
        """Returns the intervals that groups of queries see.

        Args:
            prompts: int64 [N], the prompt of each group.
            rows: int32 [N, R], the positions of a group's queries in ascending order; -1 where the
                group is not full. Each group has at least one query. All its queries belong to one
                image, or all are text and delimiters, or all are padding.
        """
        groups = self._look_up(prompts, rows)
        return Intervals(self._table(groups), self._lists(groups))

    def _look_up(self, prompts: Tensor, rows: Tensor) -> _Groups:
        """Returns the facts of the layout about the first query of each group."""
        layout, window = self._layout, self._rule.window
        places = (prompts, rows[:, 0].long())
        unused = rows < 0
        if window is None:
            near = rows.clamp(max=0)
        else:
            near = (rows - (window - 1)).clamp_(min=0).masked_fill_(unused, -1)
        kind, first = layout.kind[places][:, None], layout.first[places]
        image_start = first.clamp(min=0).long()
        return _Groups(
            prompts=prompts,
            rows=rows,
            near=near,
            blind=unused | (kind == TokenKind.PADDING),
            in_image=kind == TokenKind.IMAGE,
            first=first[:, None],
            stop=layout.stop[places][:, None] if self._rule.bidirectional else None,
            image_start=image_start,
            # If an image starts the prompt, this reads the last token. That does no harm, because
            # the delimiter would be at position -1, which is never in a window.
            has_start=layout.kind[prompts, image_start - 1][:, None] == TokenKind.START,
            first_real=rows[:, :1] - layout.ordinal[places][:, None],
        )

    def _table(self, groups: _Groups) -> Tensor:
        """Returns `Intervals.table`."""
        rows = groups.rows
        first = groups.first
        block = self._sinks.diagonal_block
        own_block = rows - (rows - first) % block
        own_image = torch.maximum(first, groups.first_real)  # outside images, all real tokens
        delimiter = first - 1
        sees_start = groups.has_start & (delimiter >= groups.near)
        stop = sink_stop = rows + 1
        if groups.stop is not None:
            stop = torch.maximum(stop, groups.stop)
            sink_stop = torch.where(
                groups.in_image, torch.minimum(own_block + block, groups.stop), stop
            )
        bounds = {
            Pattern.SINK: (torch.where(groups.in_image, own_block, groups.first_real), sink_stop),
            Pattern.INTRA_IMAGE: (torch.where(sees_start, delimiter, own_image), stop),
            Pattern.INTRA_IMAGE_SINK: (own_image, stop),
            Pattern.DENSE: (groups.first_real, stop),
        }
        columns = [bounds[pattern][side] for side in range(2) for pattern in Pattern]
        table = torch.stack(torch.broadcast_tensors(*columns, groups.near, rows))
        reach = groups.near
        if self._rule.window_spares_own_image:
            own = torch.minimum(reach, groups.image_start[:, None].int())
            reach = torch.where(groups.in_image, own, reach)
        table[: len(Pattern)].clamp_(min=reach)
        table[:-2].masked_fill_(groups.blind, 0)
        return table

    def _lists(self, groups: _Groups) -> Tensor:
        """Returns `Intervals.lists`: the text and sinks before an image, inside the window."""
        middle = groups.prompts * (2 * self._layout.tokens) + self._layout.tokens
        # Outside images, `image_start` is 0, so that nothing comes before it.
        before = groups.image_start
        places = [middle, middle + before, middle - before]
        if self._rule.window is not None:
            near = groups.near[:, 0].clamp(min=0).minimum(before)
            places += [middle + near, middle - near]
        found = self._counts[torch.stack(places)] - self._starts[groups.prompts]
        nothing, text_to, sinks_from, *at_window = found.unbind(0)
        text_from, sinks_to = at_window or (nothing, nothing)
        text, sinks = (text_from, text_to), (sinks_from, sinks_to)
        none = (nothing, nothing)
        stretches = {
            Pattern.SINK: (*text, *sinks),
            Pattern.INTRA_IMAGE: (*text, *none),
            Pattern.INTRA_IMAGE_SINK: (*text, *sinks),
            Pattern.DENSE: (*none, *none),
        }
        columns = [stretches[pattern][side] for side in range(4) for pattern in Pattern]
        return torch.stack(columns).unflatten(0, (4, len(Pattern)))


@dataclass(frozen=True)
class _Groups:
    """Queries in groups, [N, R], and the common facts of each group, [N, 1] or [N].

    Attributes:
        prompts: int64 [N], the prompt of each group.
        rows: int32 [N, R], the positions of the queries; -1 where a group is not full.
        near: int32 [N, R], the first position in the window of each query; -1 where a group is not
            full.
        blind: bool [N, R], whether an entry sees nothing, because it is padding or because the
            group is not full there.
        in_image: bool [N, 1], whether the queries are tokens of an image.
        first: int32 [N, 1], as in `PromptLayout`.
        stop: int32 [N, 1], as in `PromptLayout`; None if the rule lets no query see later keys.
        image_start: int64 [N], the first token of the image that is still in the layout; 0 outside
            images.
        has_start: bool [N, 1], whether a start delimiter stands directly before that token.
        first_real: int32 [N, 1], the first token that is not padding; a negative number if it was
            cut off.
    """

    prompts: Tensor
    rows: Tensor
    near: Tensor
    blind: Tensor
    in_image: Tensor
    first: Tensor
    stop: Tensor | None
    image_start: Tensor
    has_start: Tensor
    first_real: Tensor


def count_before(marked: Tensor) -> Tensor:
    """Returns the number of marks before each element of bool [...], and of all: int32 [N + 1].

    The marks are counted along the flattened tensor, because a GPU does not count along several
    rows in parallel.
    """
    counts = torch.zeros(marked.numel() + 1, dtype=torch.int32, device=marked.device)
    torch.cumsum(marked.flatten(), 0, dtype=torch.int32, out=counts[1:])
    return counts


def check_queries(layout: PromptLayout, rule: DenseRule, query_start: int) -> None:
    """Raises UsageError unless the position is in the layout and the window holds a token."""
    if not 0 <= query_start <= layout.tokens:
        raise UsageError(f"query_start must be in 0 … {layout.tokens}, got {query_start}")
    if rule.window is not None and rule.window < 1:
        raise UsageError(f"a window must hold at least one token, got {rule.window}")
