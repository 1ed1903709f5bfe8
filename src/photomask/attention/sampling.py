"""Chooses the image rows of a prompt that are measured, and finds their keys class by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, SinkRule, is_sink

ROWS = 256
"""The largest number of image rows of a prompt that are measured. They are evenly spaced."""


class KeyList(NamedTuple):
    """The positions of all keys of one class, in rising order.

    Attributes:
        on_host: int64 [N], the positions on the CPU.
        on_device: the same positions on the device of the keys.
    """

    on_host: Tensor
    on_device: Tensor

    @classmethod
    def of(cls, chosen: Tensor, device: torch.device) -> KeyList:
        """Returns the list of the keys that a mask on the CPU, bool [L], chooses."""
        found = chosen.nonzero()[:, 0]
        return cls(found, found.to(device))

    def reach(self, low: int, high: int) -> slice:
        """Returns the members with positions from `low` up to but not including `high`."""
        ends = torch.searchsorted(self.on_host, torch.tensor([low, high])).tolist()
        return slice(ends[0], ends[1])


@dataclass(frozen=True)
class RowBlock:
    """Adjacent sampled rows, which may belong to several images.

    Attributes:
        rows: int64 [R], the positions of the rows.
        first: int64 [R], the position of the first token of each row's image.
        stop: int64 [R], the position behind the last token of each row's image.
        started: bool [R], whether a start delimiter stands directly before that image.
        lowest: the position of the first row.
        earliest: the position of the first token of the first row's image.
        latest: the position of the first token of the last row's image.
        end: the position behind the last token of the last row's image.
        diagonal_block: the length of a diagonal block in tokens.
    """

    rows: Tensor
    first: Tensor
    stop: Tensor
    started: Tensor
    lowest: int
    earliest: int
    latest: int
    end: int
    diagonal_block: int

    def reach(self, keys: KeyList, rule: DenseRule) -> slice:
        """Returns the members of a class that may be visible to a row before its image."""
        return keys.reach(self._low(rule), self.latest)

    def unsettled(self, keys: KeyList, rule: DenseRule) -> slice:
        """Returns the end of `reach`, in which some rows see a key and others may not."""
        return keys.reach(self._low(rule) if rule.window else self.earliest - 1, self.latest)

    def before(self, keys: Tensor, rule: DenseRule, without_start: bool) -> Tensor:
        """Marks the keys that each row sees before its image: bool [R, K].

        Args:
            keys: int64 [K], positions before `latest`.
            rule: the rule that says what a dense head sees.
            without_start: whether to leave out the start delimiter of the row's own image.
        """
        limit = self.first - self.started.long() if without_start else self.first
        seen = keys < limit[:, None]
        return seen & self._near(keys, rule.window) if rule.window is not None else seen

    def sees_start(self, rule: DenseRule) -> Tensor:
        """Marks the rows that see the start delimiter of their own image: bool [R]."""
        if rule.window is None:
            return self.started
        return self.started & (self.rows - (self.first - 1) < rule.window)

    def own_image(self, rule: DenseRule) -> tuple[Tensor, Tensor]:
        """Marks the keys from `earliest` to `end` that each row sees in its own image.

        Returns:
            Two masks, bool [R, end - earliest]: the keys in the row's diagonal block, and the rest
            of the image.
        """
        keys = torch.arange(self.earliest, self.end, device=self.rows.device)
        seen = (keys >= self.first[:, None]) & (keys < self.stop[:, None])
        if not rule.bidirectional:
            seen = seen & (keys <= self.rows[:, None])
        if rule.window is not None and not rule.window_spares_own_image:
            seen = seen & self._near(keys, rule.window)
        diagonal = self._block(keys) == self._block(self.rows[:, None])
        return seen & diagonal, seen & ~diagonal

    def _low(self, rule: DenseRule) -> int:
        """Returns the first position that is in the window of a row."""
        return 0 if rule.window is None else max(0, self.lowest - rule.window + 1)

    def _near(self, keys: Tensor, window: int) -> Tensor:
        return self.rows[:, None] - keys < window

    def _block(self, positions: Tensor) -> Tensor:
        """Returns the number of the diagonal block of positions, counted from each row's image."""
        return (positions - self.first[:, None]).div(self.diagonal_block, rounding_mode="floor")


@dataclass(frozen=True)
class SampledRows:
    """The sampled rows and the classes of keys of one prompt, which all layers share.

    Attributes:
        rows: int64 [R], the positions of the sampled rows.
        columns: int64 [4, R] on the CPU: the row, the start and the end of its image, and whether
            the image has a start delimiter.
        text: the keys that are text proper.
        sinks: the sinks that are not text.
        others: the tokens of images that are not sinks.
        sink_rule: the rule that says which tokens are sinks.
    """

    rows: Tensor
    columns: Tensor
    text: KeyList
    sinks: KeyList
    others: KeyList
    sink_rule: SinkRule

    @classmethod
    def of(cls, layout: PromptLayout, sinks: SinkRule, limit: int = ROWS) -> SampledRows:
        """Samples the image rows that have an earlier image. It waits for the device.

        Args:
            layout: the layout of one prompt.
            sinks: the rule that says which tokens are sinks.
            limit: the largest number of rows.
        """
        kind, image = layout.kind[0].cpu(), layout.image[0].cpu()
        sink, inside = is_sink(layout, sinks)[0].cpu(), kind == TokenKind.IMAGE
        rows = (inside & (image >= 1)).nonzero()[:, 0]
        if len(rows) > limit:
            rows = rows[(torch.arange(limit) * len(rows) + len(rows) // 2) // limit]
        first, stop = (ends[0].cpu()[rows].long() for ends in (layout.first, layout.stop))
        started = (first > 0) & (kind[(first - 1).clamp(min=0)] == TokenKind.START)
        return cls(
            rows=rows.to(layout.device),
            columns=torch.stack([rows, first, stop, started.long()]),
            text=KeyList.of(kind == TokenKind.TEXT, layout.device),
            sinks=KeyList.of(sink, layout.device),
            others=KeyList.of(inside & ~sink, layout.device),
            sink_rule=sinks,
        )

    @property
    def count(self) -> int:
        """The number of sampled rows."""
        return self.columns.shape[1]

    def blocks(self, size: int) -> Iterator[RowBlock]:
        """Yields the rows in blocks of at most `size` rows."""
        for columns in self.columns.split(size, 1):
            rows, first, stop, started = columns.to(self.rows.device)
            yield RowBlock(
                rows,
                first,
                stop,
                started.bool(),
                lowest=int(columns[0, 0]),
                earliest=int(columns[1, 0]),
                latest=int(columns[1, -1]),
                end=int(columns[2, -1]),
                diagonal_block=self.sink_rule.diagonal_block,
            )
