"""What one attention layer's call needs, and who answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, SinkRule
from photomask.attention.schedule import Schedule, build_schedule


class AttentionCall:
    """What the attention layers with one kind of mask share within one forward.

    Attributes:
        layout: of the keys, on the device of the layer.
        query_start: position of the first query among these keys.
        rule: what a dense head of these layers sees.
    """

    def __init__(self, layout: PromptLayout, query_start: int, rule: DenseRule):
        """Describes a call.

        Args:
            layout: of the keys that the layer has; a sliding cache may have dropped the first.
            query_start: position of the first query among these keys.
            rule: what a dense head sees.
        """
        self.layout = layout
        self.query_start = query_start
        self.rule = rule
        self._schedules: dict[SinkRule, Schedule] = {}

    def schedule(self, sinks: SinkRule) -> Schedule:
        """Returns the schedule of this call; built at the first request, then reused."""
        if sinks not in self._schedules:
            schedule = build_schedule(self.layout, sinks, self.rule, self.query_start)
            self._schedules[sinks] = schedule
        return self._schedules[sinks]

    def without_schedules(self) -> AttentionCall:
        """Returns the same call, which keeps no schedule alive."""
        return AttentionCall(self.layout, self.query_start, self.rule)


@dataclass(frozen=True, eq=False)
class AttentionRequest:
    """One attention layer asks for its output.

    Attributes:
        layer: number of the text layer.
        module: the attention layer.
        query: [B, H, Q, D].
        key: [B, G, K, D], K as many as the call's layout has; head h reads h // (H / G).
        value: [B, G, K, D].
        scale: factor of the scores.
        call: layout of the keys, and what a dense head sees.
        dense: runs the model's own attention and returns [B, H, Q, D].
    """

    layer: int
    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    call: AttentionCall
    dense: Callable[[], Tensor]


class AttentionHandler(Protocol):
    """Answers the attention layers of a model when their queries contain tokens of images."""

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Computes one layer's attention.

        Returns:
            [B, H, Q, D]; the rows of padding may hold anything finite.
        """
        ...
