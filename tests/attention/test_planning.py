"""Plans: within their budget, nested, and what the equations say."""

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attention.random_statistics import random_statistics

from photomask.attention.measuring import SPARSE
from photomask.attention.patterns import Pattern
from photomask.attention.planning import density, lost_output, plan, plan_by_votes, sweep
from photomask.attention.statistics import AttentionStatistics
from photomask.errors import PlanError, UsageError

budgets = st.floats(0, 1)
seeds = st.integers(0, 1000)
few = settings(max_examples=40)


def work(statistics: AttentionStatistics, patterns) -> int:
    """Pairs that a plan visits, counted head by head."""
    return sum(
        int(statistics.pairs[prompt, layer, pattern])
        for prompt in range(len(statistics.prompts))
        for layer, row in enumerate(patterns)
        for pattern in row
    )


def loss(statistics: AttentionStatistics, patterns) -> float:
    """The lost output by its equation, number by number."""
    total = 0.0
    for layer, row in enumerate(patterns):
        weight = sensitivity(statistics, layer)
        for head, pattern in enumerate(row):
            if pattern is not Pattern.DENSE:
                ratios = [
                    float(statistics.projected_error[prompt, layer, head, SPARSE.index(pattern)])
                    / float(statistics.layer_norm[prompt, layer])
                    for prompt in range(len(statistics.prompts))
                ]
                total += weight * sum(ratios) / len(ratios)
    return min(1.0, math.sqrt(total))


def sensitivity(statistics: AttentionStatistics, layer: int) -> float:
    """How much the answer changes with the error of a layer, number by number."""
    change = error = 0.0
    for prompt, record in enumerate(statistics.prompts):
        if record.probed:
            change += float(statistics.change[prompt, layer])
            norm = float(statistics.layer_norm[prompt, layer])
            error += sum(
                float(statistics.projected_error[prompt, layer, head, SPARSE.index(Pattern.SINK)])
                / norm
                for head in range(statistics.model.heads)
            )
    return change / error if error else 0.0


class TestBudget:
    @few
    @given(seeds, budgets, budgets, st.booleans())
    def test_a_larger_budget_is_never_denser(self, seed, one, other, kv_groups):
        statistics = random_statistics(seed=seed)
        small, large = sorted([one, other])
        tight = plan(statistics, budget=small, kv_groups=kv_groups)
        loose = plan(statistics, budget=large, kv_groups=kv_groups)
        for before, after in zip(tight.patterns, loose.patterns, strict=True):
            assert all(b <= a for a, b in zip(before, after, strict=True))
        assert density(loose, statistics) <= density(tight, statistics)

    @few
    @given(seeds, budgets, st.booleans())
    def test_a_plan_keeps_its_budget_by_the_equation(self, seed, budget, kv_groups):
        statistics = random_statistics(seed=seed)
        found = plan(statistics, budget=budget, kv_groups=kv_groups)
        assert lost_output(found, statistics) == pytest.approx(loss(statistics, found.patterns))
        assert lost_output(found, statistics) <= budget + 1e-9
        assert found.decision.lost_output == lost_output(found, statistics)

    def test_the_plan_is_the_best_for_what_it_spends(self):
        statistics = random_statistics(prompts=2, layers=2, heads=2, seed=5)
        for budget in (0.05, 0.15, 0.3, 0.5):
            found = plan(statistics, budget=budget)
            spent = loss(statistics, found.patterns)
            cheapest = min(
                work(statistics, patterns)
                for heads in itertools.product(Pattern, repeat=4)
                if loss(statistics, patterns := (heads[:2], heads[2:])) <= spent + 1e-12
            )
            assert work(statistics, found.patterns) == cheapest

    def test_budget_zero_takes_only_what_changes_nothing(self):
        statistics = random_statistics(seed=3)
        found = plan(statistics, budget=0)
        error = statistics.projected_error.sum(0)
        sparse = 0
        for layer, row in enumerate(found.patterns):
            for head, pattern in enumerate(row):
                free = [p for p in SPARSE if error[layer, head, SPARSE.index(p)] == 0]
                assert pattern == min(free, default=Pattern.DENSE)
                sparse += pattern is not Pattern.DENSE
        assert sparse > 0
        assert lost_output(found, statistics) == 0

    def test_budget_zero_is_dense_where_every_pattern_loses(self):
        statistics = random_statistics()
        statistics = dataclasses.replace(
            statistics, projected_error=statistics.projected_error + 1e-6
        )
        assert plan(statistics, budget=0).count(Pattern.DENSE) == 12
        assert density(plan(statistics, budget=0), statistics) == 1

    def test_budget_one_takes_the_cheapest_patterns(self):
        statistics = random_statistics()
        huge = dataclasses.replace(statistics, projected_error=statistics.projected_error + 100)
        assert plan(huge, budget=1).count(Pattern.SINK) == 12
        assert lost_output(plan(huge, budget=1), huge) == 1

    @few
    @given(seeds, budgets)
    def test_groups_are_decided_together(self, seed, budget):
        statistics = random_statistics(seed=seed)
        found = plan(statistics, budget=budget, kv_groups=True)
        assert found.kv_groups
        assert all(row[0] == row[1] and row[2] == row[3] for row in found.patterns)

    @pytest.mark.parametrize("budget", [-0.1, 1.1, math.nan, math.inf])
    def test_a_budget_outside_zero_to_one_is_refused(self, budget):
        with pytest.raises(UsageError, match="from 0 to 1"):
            plan(random_statistics(), budget=budget)

    def test_a_pattern_that_saves_nothing_is_never_chosen(self):
        statistics = random_statistics()
        pairs = statistics.pairs.clone()
        pairs[:, 1] = pairs[:, 1, 3:]
        statistics = dataclasses.replace(statistics, pairs=pairs)
        assert set(plan(statistics, budget=1).patterns[1]) == {Pattern.DENSE}


class TestVotes:
    @staticmethod
    def by_hand(statistics, alphas, gammas):
        """The paper's rule, loop by loop."""
        rows = []
        for layer, alpha in enumerate(alphas):
            row = []
            for head in range(statistics.model.heads):
                chosen = Pattern.DENSE
                for place in (2, 1, 0):
                    votes = [
                        float(statistics.recall[prompt, layer, head, place]) >= 1 - alpha
                        for prompt in range(len(statistics.prompts))
                    ]
                    if sum(votes) / len(votes) >= gammas[place]:
                        chosen = SPARSE[place]
                row.append(chosen)
            rows.append(tuple(row))
        return tuple(rows)

    @few
    @given(seeds, st.floats(0, 1), st.lists(st.floats(0, 1), min_size=3, max_size=3))
    def test_votes_follow_the_rule(self, seed, alpha, gammas):
        statistics = random_statistics(seed=seed)
        sink, intra, both = gammas
        found = plan_by_votes(
            statistics, alpha=alpha, gamma_sink=sink, gamma_intra_image=intra, gamma_both=both
        )
        assert found.patterns == self.by_hand(statistics, [alpha] * 3, gammas)

    def test_alpha_is_linear_in_depth(self):
        statistics = random_statistics(seed=7)
        found = plan_by_votes(
            statistics, alpha=(0.1, 0.9), gamma_sink=0.5, gamma_intra_image=0.5, gamma_both=0.5
        )
        assert found.patterns == self.by_hand(statistics, [0.1, 0.5, 0.9], [0.5] * 3)
        assert found.decision.alpha == (0.1, 0.9)

    @pytest.mark.parametrize("wrong", [{"alpha": 1.5}, {"alpha": (0.1, -1)}, {"gamma_both": 2}])
    def test_thresholds_outside_zero_to_one_are_refused(self, wrong):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            plan_by_votes(random_statistics(), **wrong)


class TestMeasures:
    @few
    @given(seeds, budgets)
    def test_density_is_visited_over_dense_pairs(self, seed, budget):
        statistics = random_statistics(seed=seed)
        found = plan(statistics, budget=budget)
        dense = work(statistics, [[Pattern.DENSE] * 4] * 3)
        assert density(found, statistics) == work(statistics, found.patterns) / dense

    def test_a_sweep_is_one_plan_for_each_budget(self):
        statistics = random_statistics()
        points = sweep(statistics, [0.0, 0.2, 1.0])
        assert [point.budget for point in points] == [0.0, 0.2, 1.0]
        for point in points:
            assert point.plan == plan(statistics, budget=point.budget)
            assert point.density == density(point.plan, statistics)
            assert point.lost_output == lost_output(point.plan, statistics)

    def test_the_plan_says_what_it_was_made_from(self):
        statistics = random_statistics()
        found = plan(statistics, budget=0.3).calibration
        assert found is not None
        assert (found.prompts, found.fewest_images, found.most_images) == (5, 2, 6)
        assert found.tasks == {"compare": 3, "count": 2}
        assert found.statistics_sha256 == statistics.content_hash()
        assert found.recall.sink == pytest.approx(float(statistics.recall[..., 0].mean()))

    def test_a_plan_of_other_statistics_is_refused(self):
        found = plan(random_statistics())
        other = random_statistics(layers=4)
        with pytest.raises(PlanError, match="layers: 3, 4"):
            lost_output(found, other)
        other = dataclasses.replace(
            random_statistics(), sinks=other.sinks.model_copy(update={"leading": 9})
        )
        with pytest.raises(PlanError, match="sinks"):
            density(found, other)


def test_planning_does_not_depend_on_the_order_of_the_prompts():
    statistics = random_statistics()
    order = torch.tensor([4, 1, 0, 3, 2])
    shuffled = AttentionStatistics.merge(
        dataclasses.replace(
            statistics,
            prompts=(statistics.prompts[place],),
            **{name: x[place : place + 1] for name, x in statistics.tensors().items()},
        )
        for place in order
    )
    assert plan(shuffled, budget=0.3).patterns == plan(statistics, budget=0.3).patterns
