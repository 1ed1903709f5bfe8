"""Handlers that show what runs: one counts the visible pairs, one writes the mask out."""

from __future__ import annotations

from torch import Tensor

from photomask.attention.conversion import PlanHandler
from photomask.attention.head_plan import HeadPlan
from photomask.attention.kernels import reference_attention
from photomask.attention.plugin import AttentionRequest
from photomask.attention.verification.documents import density_of
from photomask.attention.verification.pairs import PairTable


class CountingHandler:
    """Runs a plan and counts the query-key pairs that its heads see, over all prompts.

    Attributes:
        pairs: the counts.
    """

    def __init__(self, plan: HeadPlan):
        self.run = PlanHandler(plan)
        self.pairs = PairTable(plan)

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Counts one layer's pairs, then runs it."""
        self.pairs.add(request.layer, request.call)
        return self.run(request)

    @property
    def density(self) -> float:
        """Visible over causal pairs; 1 where no prompt had an image."""
        return density_of(self.pairs.by_layer())


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
