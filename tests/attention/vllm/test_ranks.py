"""A plan cut by rank is the plan: every head keeps its pattern and its key head."""

from __future__ import annotations

import pytest

from photomask.attention.head_plan import HeadPlan
from photomask.attention.identity import ModelIdentity
from photomask.attention.patterns import Pattern, SinkRule
from photomask.attention.vllm.ranks import plan_of_rank
from photomask.errors import PlanError


def plan_of(heads: int, kv_heads: int, layers: int = 3) -> HeadPlan:
    identity = ModelIdentity(
        model_type="qwen2_5_vl",
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=16,
        hidden_size=64,
        vocabulary=64,
        fingerprint="0" * 64,
    )
    patterns = [
        [Pattern((7 * layer + 3 * head + head // 3) % 4) for head in range(heads)]
        for layer in range(layers)
    ]
    plan = HeadPlan.uniform(identity, Pattern.SINK, SinkRule(leading=2, diagonal_block=8))
    return plan.with_patterns(patterns)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "ranks"), [(28, 4, 1), (28, 4, 2), (28, 4, 4), (8, 2, 4), (8, 1, 8)]
)
def test_ranks_together_have_every_head_once_with_its_key_head(
    heads: int, kv_heads: int, ranks: int
) -> None:
    plan = plan_of(heads, kv_heads)
    shares = [plan_of_rank(plan, rank, ranks) for rank in range(ranks)]
    for layer in range(3):
        joined = [pattern for share in shares for pattern in share.patterns[layer]]
        assert joined == [*plan.patterns[layer]]
    for rank, share in enumerate(shares):
        assert share.sinks == plan.sinks
        own, keys = share.model.heads, share.model.kv_heads
        for head in range(own):
            # vLLM gives rank r the key heads from r · G / n on, rounded down.
            key_head = rank * kv_heads // ranks + head // (own // keys)
            assert key_head == (rank * own + head) // (heads // kv_heads)


@pytest.mark.parametrize(("rank", "ranks"), [(0, 3), (0, 56), (2, 2), (-1, 2), (0, 14)])
def test_ranks_that_cannot_share_evenly_are_refused(rank: int, ranks: int) -> None:
    with pytest.raises(PlanError, match="cannot have an even share of 28 heads and 4 key heads"):
        plan_of_rank(plan_of(28, 4), rank, ranks)


def test_a_plan_that_was_decided_in_groups_is_cut_too() -> None:
    plan = HeadPlan.uniform(plan_of(8, 2).model, Pattern.SINK)
    assert plan_of_rank(plan, 3, 4).patterns[0] == (Pattern.SINK,) * 2
