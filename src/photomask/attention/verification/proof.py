"""Handlers that show what runs: one counts the visible pairs, one writes the mask out."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from photomask.attention.conversion import PlanHandler
from photomask.attention.head_plan import HeadPlan
from photomask.attention.kernels import reference_attention
from photomask.attention.patterns import Pattern
from photomask.attention.plugin import AttentionCall
from photomask.attention.visible_pairs import visible_pairs


class CountingHandler:
    """Runs a plan and counts the query-key pairs that its heads see.

    Attributes:
        visible: pairs seen, over all layers, heads and prompts so far.
        causal: pairs that dense heads would see.
    """

    def __init__(self, plan: HeadPlan):
        self.plan = plan
        self.run = PlanHandler(plan)
        self.visible = 0
        self.causal = 0
        self._last: tuple[AttentionCall, dict[Pattern, int]] | None = None

    def __call__(
        self,
        layer: int,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        call: AttentionCall,
        dense: Callable[[], Tensor],
    ) -> Tensor:
        """Counts one layer's pairs, then runs it."""
        pairs = self._pairs(call)
        patterns = self.plan.patterns[layer]
        self.visible += sum(pairs[pattern] for pattern in patterns)
        self.causal += pairs[Pattern.DENSE] * len(patterns)
        return self.run(layer, module, query, key, value, scale, call, dense)

    @property
    def density(self) -> float:
        """Visible over causal pairs; 1 where no prompt had an image."""
        return self.visible / self.causal if self.causal else 1.0

    def _pairs(self, call: AttentionCall) -> dict[Pattern, int]:
        """Counts once for all layers that share a call."""
        if self._last is None or self._last[0] is not call:
            counts = {
                pattern: int(
                    visible_pairs(
                        call.layout, pattern, self.plan.sinks, call.rule, call.query_start
                    ).sum()
                )
                for pattern in Pattern
            }
            self._last = (call, counts)
        return self._last[1]


class LiteralHandler:
    """Runs a plan with its masks written out, in O(L²) memory."""

    def __init__(self, plan: HeadPlan):
        self.plan = plan

    def __call__(
        self,
        layer: int,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        call: AttentionCall,
        dense: Callable[[], Tensor],
    ) -> Tensor:
        """Runs one layer."""
        del module, dense
        patterns, sinks = self.plan.patterns[layer], self.plan.sinks
        return reference_attention(
            query, key, value, call.layout, patterns, sinks, call.rule, scale
        )
