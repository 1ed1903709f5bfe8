"""Which keys every query sees, as three intervals: what schedules and counts are made of.

A query sees one contiguous range of the sequence, and stretches of two lists: the text of its
prompt, and the sinks that are not text, both in the order of the sequence.
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
    """What each query of a batch of prompts sees under one pattern; every `high` is exclusive.

    Attributes:
        low: int32 [B, Q], where the contiguous range starts, a position.
        high: int32 [B, Q], where it stops.
        text_low: int32 [B, Q], the first visible text token outside the range, counted among text.
        text_high: int32 [B, Q].
        sink_low: int32 [B, Q], likewise, counted among the sinks that are not text.
        sink_high: int32 [B, Q].
    """

    low: Tensor
    high: Tensor
    text_low: Tensor
    text_high: Tensor
    sink_low: Tensor
    sink_high: Tensor

    @property
    def sizes(self) -> Tensor:
        """int32 [B, Q], how many keys each query sees."""
        ranges = self.high - self.low
        return ranges + (self.text_high - self.text_low) + (self.sink_high - self.sink_low)


class IntervalBuilder:
    """Finds the intervals of any pattern for one layout; what patterns share is computed once.

    Attributes:
        near: int32 [Q], the first position that the window lets a query see; 0 without a window.
        text: bool [B, L], the tokens that `text_low` counts.
        sink: bool [B, L], the tokens that `sink_low` counts.
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
        if not 0 <= query_start <= layout.tokens:
            raise UsageError(f"query_start must be in 0 … {layout.tokens}, got {query_start}")
        if rule.window is not None and rule.window < 1:
            raise UsageError(f"a window must hold at least one token, got {rule.window}")
        self._sinks, self._rule = sinks, rule
        self.text = layout.kind == TokenKind.TEXT
        self.sink = is_sink(layout, sinks)
        self._texts_before = _count_before(self.text)
        self._sinks_before = _count_before(self.sink)
        self._rows = layout.positions[query_start:]
        self._real = layout.kind[:, query_start:] != TokenKind.PADDING
        self._in_image = layout.kind[:, query_start:] == TokenKind.IMAGE
        self._first = layout.first[:, query_start:]
        self._stop = layout.stop[:, query_start:]
        self.near = torch.zeros_like(self._rows)
        if rule.window is not None:
            self.near = (self._rows - (rule.window - 1)).clamp(min=0)
        real = layout.kind != TokenKind.PADDING
        places = torch.where(real, layout.positions, layout.tokens)
        self._first_real = places.amin(1, keepdim=True) if layout.tokens else self._first[:, :1]
        delimiter = (self._first - 1).clamp(min=0)
        is_start = layout.kind == TokenKind.START
        self._has_start = is_start.gather(1, delimiter.long()) & (self._first > 0) & self._in_image

    def build(self, pattern: Pattern) -> Intervals:
        """Returns the intervals of a pattern; the rows of padding have empty ones."""
        low, high = self._dense_range()
        if pattern is Pattern.DENSE:
            nothing = torch.zeros_like(low)
            return Intervals(low, high, nothing, nothing, nothing, nothing)
        own_low, own_high = self._own_range(pattern)
        low = torch.where(self._in_image, own_low, low)
        high = torch.where(self._in_image, own_high, high)
        text_low, text_high = self._earlier(self._texts_before)
        if pattern is Pattern.INTRA_IMAGE:
            sink_low = sink_high = torch.zeros_like(low)
        else:
            sink_low, sink_high = self._earlier(self._sinks_before)
        return Intervals(low, high, text_low, text_high, sink_low, sink_high)

    def _dense_range(self) -> tuple[Tensor, Tensor]:
        """Returns the range of a dense head."""
        low = torch.maximum(self.near, self._first_real)
        if self._rule.window_spares_own_image:
            own = torch.minimum(low, self._first.clamp(min=0))
            low = torch.where(self._in_image, own, low)
        high = (self._rows + 1).expand_as(self._first)
        if self._rule.bidirectional:
            high = torch.where(self._in_image, self._stop, high)
        return torch.where(self._real, low, 0), torch.where(self._real, high, 0)

    def _own_range(self, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Returns what an image row sees of its own image; meaningless in other rows."""
        low, stop = self._first, self._stop
        if pattern is Pattern.SINK:
            block = self._sinks.diagonal_block
            low = self._rows - (self._rows - self._first) % block
            stop = torch.minimum(low + block, stop)
        elif pattern is Pattern.INTRA_IMAGE:
            low = low - (self._has_start & (low > self.near)).to(low.dtype)
        if not self._rule.window_spares_own_image:
            low = torch.maximum(low, self.near)
        causal_stop = (self._rows + 1).expand_as(stop)
        return low.clamp(min=0), stop if self._rule.bidirectional else causal_stop

    def _earlier(self, count_before: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what an image row sees of a list: the part before its image, in the window."""
        nothing = torch.zeros_like(self._first)
        before_image = self._first.clamp(min=0).long()
        high = torch.where(self._in_image, count_before.gather(1, before_image), nothing)
        if self._rule.window is None:
            return nothing, high
        return torch.minimum(count_before[:, self.near.long()], high), high


def _count_before(marked: Tensor) -> Tensor:
    """Counts the marked tokens before each position: int32 [B, L + 1]."""
    counts = torch.zeros(
        marked.shape[0], marked.shape[1] + 1, dtype=torch.int32, device=marked.device
    )
    torch.cumsum(marked, 1, dtype=torch.int32, out=counts[:, 1:])
    return counts
