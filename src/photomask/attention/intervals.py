"""Which keys queries see, as three intervals: what schedules and counts are made of.

A query sees one contiguous range of the sequence, and stretches of two lists: the text of its
prompt, and the sinks that are not text. They form the **compact** list of the prompt, the sinks
from the last to the first, then the text from the first to the last: so that what comes before an
image is one stretch around the middle, however much it is of both.

On a GPU each operation costs its start, hardly its work. So all patterns are computed at once, and
what the queries of a group have in common is looked up once for the group.
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
    """What N groups of R queries see under each of the P patterns.

    Attributes:
        table: int32 [2P + 2, N, R], one tensor so that groups are put in order at once:
            for each pattern the first key of a query's range, a position;
            for each pattern the position behind the last key of the range; of padding, and where a
            group is not full, both are 0;
            the first position that the window lets a query see; 0 without a window;
            the query's own position; both are -1 where a group is not full.
        lists: int32 [4, P, N], what the first query of a group sees of the compact list: from and
            to which place text, from and to which place sinks. The window may leave less of it to
            the other queries.
    """

    table: Tensor
    lists: Tensor

    @property
    def ranges(self) -> Tensor:
        """int32 [2, P, N, R], the first key of each range and the one behind the last."""
        return self.table[:-2].unflatten(0, (2, len(Pattern)))


class IntervalBuilder:
    """Finds the intervals of queries of one layout.

    Attributes:
        listed: int32 [B], the length of the compact list of each prompt.
    """

    def __init__(
        self, layout: PromptLayout, sinks: SinkRule, rule: DenseRule, query_start: int = 0
    ) -> None:
        """Looks at the layout; nothing waits for the device.

        Args:
            layout: of all keys.
            sinks: which tokens are sinks.
            rule: what a dense head would see.
            query_start: the first query is the token with this position among the keys.

        Raises:
            UsageError: `query_start` is no position of the layout, or the window is empty.
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
        """Writes out the compact lists.

        Args:
            length: of the longest of them.

        Returns:
            int64 [B, length], positions of sinks, of text, and then of some real token.
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
        """Finds what groups of queries see.

        Args:
            prompts: int64 [N], the prompt of each group.
            rows: int32 [N, R], the positions of its queries, which grow; -1 where it is not full.
                Each group has a query, and is of one image, of text and delimiters, or of padding.
        """
        groups = self._look_up(prompts, rows)
        return Intervals(self._table(groups), self._lists(groups))

    def _look_up(self, prompts: Tensor, rows: Tensor) -> _Groups:
        """Gathers what the layout says of the first query of each group."""
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
            # Reads the last token where an image is the first; position -1 is never `near`.
            has_start=layout.kind[prompts, image_start - 1][:, None] == TokenKind.START,
            first_real=rows[:, :1] - layout.ordinal[places][:, None],
        )

    def _table(self, groups: _Groups) -> Tensor:
        """Returns `Intervals.table`."""
        rows = groups.rows
        first = groups.first
        block = self._sinks.diagonal_block
        own_block = rows - (rows - first) % block
        own_image = torch.maximum(first, groups.first_real)  # all tokens, outside images
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
        """Returns `Intervals.lists`: what comes before an image, in the window."""
        middle = groups.prompts * (2 * self._layout.tokens) + self._layout.tokens
        # Outside images the image starts at 0, so that nothing comes before it.
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
    """Queries in groups, [N, R], and what the queries of a group have in common, [N, 1] or [N].

    Attributes:
        prompts: int64 [N].
        rows: int32 [N, R], the queries; -1 where a group is not full.
        near: int32 [N, R], the first position in the window of each; -1 where not full.
        blind: bool [N, R], what sees nothing: padding, and where a group is not full.
        in_image: bool [N, 1].
        first: int32 [N, 1], as in `PromptLayout`.
        stop: int32 [N, 1], as in `PromptLayout`; None where no query sees later keys.
        image_start: int64 [N], the first token of the image that the layout has; 0 outside images.
        has_start: bool [N, 1], whether a start delimiter stands before that token.
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
    """Counts the marked ones of bool [...] before each, and lastly all: int32 [N + 1].

    Counts along the flat tensor: a GPU does not count along several rows in parallel.
    """
    counts = torch.zeros(marked.numel() + 1, dtype=torch.int32, device=marked.device)
    torch.cumsum(marked.flatten(), 0, dtype=torch.int32, out=counts[1:])
    return counts


def check_queries(layout: PromptLayout, rule: DenseRule, query_start: int) -> None:
    """Raises `UsageError` unless the position is one of the layout and the window holds a token."""
    if not 0 <= query_start <= layout.tokens:
        raise UsageError(f"query_start must be in 0 … {layout.tokens}, got {query_start}")
    if rule.window is not None and rule.window < 1:
        raise UsageError(f"a window must hold at least one token, got {rule.window}")
