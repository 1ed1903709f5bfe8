"""Handlers that show what runs: one counts the visible pairs, one writes the mask out."""

from __future__ import annotations

from torch import Tensor

from photomask.attention.conversion import PlanHandler
from photomask.attention.head_plan import HeadPlan
from photomask.attention.kernels import reference_attention
from photomask.attention.patterns import Pattern
from photomask.attention.plugin import AttentionCall, AttentionRequest
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

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Counts one layer's pairs, then runs it."""
        pairs = self._pairs(request.call)
        patterns = self.plan.patterns[request.layer]
        self.visible += sum(pairs[pattern] for pattern in patterns)
        self.causal += pairs[Pattern.DENSE] * len(patterns)
        return self.run(request)

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

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Runs one layer."""
        patterns, call = self.plan.patterns[request.layer], request.call
        return reference_attention(
            request.query,
            request.key,
            request.value,
            call.layout,
            patterns,
            self.plan.sinks,
            call.rule,
            request.scale,
        )
