"""Cuts a plan for tensor parallelism, which divides the heads of every layer over several GPUs."""

from __future__ import annotations

from photomask.attention.head_plan import HandDecision, HeadPlan
from photomask.errors import PlanError


def plan_of_rank(plan: HeadPlan, rank: int, ranks: int) -> HeadPlan:
    """Returns the plan of the heads that one rank computes.

    With H query heads, rank r of n has the heads r·H/n to (r+1)·H/n - 1, and the key heads that
    they read. If there are more ranks than key heads, several ranks have a copy of the same one.

    Args:
        plan: the plan of the whole model.
        rank: the number of the rank, from 0.
        ranks: the number of ranks, n.

    Raises:
        PlanError: the heads or the key heads cannot be divided evenly.
    """
    heads, kv_heads = plan.model.heads, plan.model.kv_heads
    if not 0 <= rank < ranks or heads % ranks or (kv_heads % ranks and ranks % kv_heads):
        raise PlanError(
            f"rank {rank} of {ranks} cannot have an even share of {heads} heads and {kv_heads} key "
            "heads; choose a tensor parallel size that divides the heads, and that divides the key "
            "heads or is a multiple of them"
        )
    own = heads // ranks
    share = plan.model.model_copy(update={"heads": own, "kv_heads": max(1, kv_heads // ranks)})
    return HeadPlan(
        model=share,
        sinks=plan.sinks,
        patterns=tuple(row[rank * own : (rank + 1) * own] for row in plan.patterns),
        decision=HandDecision(),
        provenance=plan.provenance,
    )
