"""Which image rows of a prompt are measured, and where each class of key lies for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, SinkRule, is_sink

ROWS = 256
"""Image rows of a prompt that are measured; where there are more, evenly spaced ones are."""


class KeyList(NamedTuple):
    """The positions of all keys of one class, in rising order.

    Attributes:
        on_host: int64 [N], on the CPU.
        on_device: the same where the keys are.
    """

    on_host: Tensor
    on_device: Tensor

    @classmethod
    def of(cls, chosen: Tensor, device: torch.device) -> KeyList:
        """Lists the keys that a mask on the CPU, bool [L], chooses."""
        found = chosen.nonzero()[:, 0]
        return cls(found, found.to(device))

    def reach(self, low: int, high: int) -> slice:
        """Returns which members have positions from `low` up to `high`, not included."""
        ends = torch.searchsorted(self.on_host, torch.tensor([low, high])).tolist()
        return slice(ends[0], ends[1])


@dataclass(frozen=True)
class RowBlock:
    """Adjacent sampled rows, which may belong to several images.

    Attributes:
        rows: int64 [R], positions.
        first: int64 [R], where the image of each row begins.
        stop: int64 [R], behind where it ends.
        started: bool [R], whether a start delimiter stands directly before it.
        lowest: the first row.
        earliest: where the first row's image begins.
        latest: where the last row's image begins.
        end: behind where the last row's image ends.
        diagonal_block: tokens of a sink head's own block.
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
        """Returns which members of a class lie before some row's image and inside its window."""
        return keys.reach(self._low(rule), self.latest)

    def unsettled(self, keys: KeyList, rule: DenseRule) -> slice:
        """Returns the end of `reach` where it depends on the row whether it sees a key."""
        return keys.reach(self._low(rule) if rule.window else self.earliest - 1, self.latest)

    def before(self, keys: Tensor, rule: DenseRule, without_start: bool) -> Tensor:
        """Tells which keys each row sees before its image: bool [R, K].

        Args:
            keys: int64 [K], positions before `latest`.
            rule: what a dense head sees.
            without_start: leave the image's own start delimiter out.
        """
        limit = self.first - self.started.long() if without_start else self.first
        seen = keys < limit[:, None]
        return seen & self._near(keys, rule.window) if rule.window is not None else seen

    def sees_start(self, rule: DenseRule) -> Tensor:
        """Tells which rows see a start delimiter of their own image: bool [R]."""
        if rule.window is None:
            return self.started
        return self.started & (self.rows - (self.first - 1) < rule.window)

    def own_image(self, rule: DenseRule) -> tuple[Tensor, Tensor]:
        """Tells which keys from `earliest` to `end` are in each row's image and visible.

        Returns:
            Two bool [R, end - earliest]: those in the row's diagonal block, and the rest.
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
        """Returns the first position that a window leaves to some row."""
        return 0 if rule.window is None else max(0, self.lowest - rule.window + 1)

    def _near(self, keys: Tensor, window: int) -> Tensor:
        return self.rows[:, None] - keys < window

    def _block(self, positions: Tensor) -> Tensor:
        """Returns the number of the diagonal block, seen from each row's image."""
        return (positions - self.first[:, None]).div(self.diagonal_block, rounding_mode="floor")


@dataclass(frozen=True)
class SampledRows:
    """What all layers share of measuring one prompt; O(tokens) memory.

    Attributes:
        rows: int64 [R], positions of the sampled rows.
        columns: on the CPU, int64 [4, R]: row, begin and end of its image, has it a delimiter.
        text: keys that are text proper.
        sinks: sinks that are not text.
        others: tokens of images that are no sinks.
        sink_rule: which tokens are sinks.
    """

    rows: Tensor
    columns: Tensor
    text: KeyList
    sinks: KeyList
    others: KeyList
    sink_rule: SinkRule

    @classmethod
    def of(cls, layout: PromptLayout, sinks: SinkRule, limit: int = ROWS) -> SampledRows:
        """Chooses among the image rows with an earlier image. Waits for the device.

        Args:
            layout: of one prompt.
            sinks: which tokens are sinks.
            limit: rows to choose at most.
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
        """Sampled rows."""
        return self.columns.shape[1]

    def blocks(self, size: int) -> Iterator[RowBlock]:
        """Cuts the rows into blocks of `size`."""
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
