"""The calls of attention layers, and the interface of the handlers that answer them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, SinkRule
from photomask.attention.schedule import Schedule, build_schedule


class AttentionCall:
    """The facts that all attention layers with one kind of mask share within one forward.

    Attributes:
        layout: the layout of the keys, on the device of the layer.
        query_start: the position of the first query among these keys.
        rule: the rule that says what a dense head of these layers sees.
    """

    def __init__(self, layout: PromptLayout, query_start: int, rule: DenseRule):
        """Describes a call.

        Args:
            layout: the layout of the keys that the layer has. A sliding cache may have dropped the
                first keys.
            query_start: the position of the first query among these keys.
            rule: the rule that says what a dense head sees.
        """
        self.layout = layout
        self.query_start = query_start
        self.rule = rule
        self._schedules: dict[SinkRule, Schedule] = {}

    def schedule(self, sinks: SinkRule) -> Schedule:
        """Returns the schedule of this call. The first request builds it, later ones reuse it."""
        if sinks not in self._schedules:
            schedule = build_schedule(self.layout, sinks, self.rule, self.query_start)
            self._schedules[sinks] = schedule
        return self._schedules[sinks]

    def without_schedules(self) -> AttentionCall:
        """Returns a copy of this call that keeps no schedule alive."""
        return AttentionCall(self.layout, self.query_start, self.rule)


@dataclass(frozen=True, eq=False)
class AttentionRequest:
    """The request of one attention layer for its output.

    Attributes:
        layer: the number of the text layer.
        module: the attention layer.
        query: the queries, [B, H, Q, D].
        key: the keys, [B, G, K, D]. K is the number of tokens of the call's layout, and head h
            reads key head h // (H / G).
        value: the values, [B, G, K, D].
        scale: the factor of the scores.
        call: the layout of the keys, and the rule that says what a dense head sees.
        dense: a function that runs the model's own attention and returns [B, H, Q, D].
        ran: the names of the functions that computed the layer. The handler appends them; `dense`
            appends its own.
    """

    layer: int
    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    call: AttentionCall
    dense: Callable[[], Tensor]
    ran: list[str]


class AttentionHandler(Protocol):
    """The interface of a function that computes attention when queries are tokens of images."""

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Computes the attention of one layer.

        Returns:
            The output, [B, H, Q, D]. The rows of padding may hold any finite numbers.
        """
        ...
