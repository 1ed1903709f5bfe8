"""Decides from statistics which pattern every head gets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.attention.head_plan import HeadPlan
from photomask.attention.measuring import SPARSE
from photomask.attention.patterns import Pattern
from photomask.attention.plan_records import (
    BudgetDecision,
    CalibrationSummary,
    PatternRecall,
    VoteDecision,
)
from photomask.attention.statistics import AttentionStatistics
from photomask.errors import PlanError, UsageError
from photomask.stages import stage

DEFAULT_BUDGET = 0.05
"""The share of the output that a plan may lose by default. The script `benchmarks/head_plans.py`
measures how many answers of the shipped model change at each budget."""


@dataclass(frozen=True)
class SweepPoint:
    """One plan of a sweep over budgets.

    Attributes:
        budget: the budget of this plan.
        plan: the plan that the budget allows.
        density: what the function `density` returns for the plan.
        lost_output: what the function `lost_output` returns for the plan.
    """

    budget: float
    plan: HeadPlan
    density: float
    lost_output: float


@stage(__name__, "plan")
def plan(
    statistics: AttentionStatistics, *, budget: float = DEFAULT_BUDGET, kv_groups: bool = False
) -> HeadPlan:
    """Returns the plan that saves the most work for the least error within a budget.

    Every head starts dense. For each head, only the patterns on the lower convex hull of error over
    visible pairs are candidates, and a step goes from one of them to the next cheaper one. The
    steps of all heads are taken in rising order of error per saved pair. They stop before the first
    step that would make `lost_output` exceed the budget. Plans are therefore nested: a larger
    budget never gives a denser plan.

    Args:
        statistics: the statistics of the model.
        budget: the limit of `lost_output`, from 0 to 1. With 0, a head gets a sparse pattern only
            if that changes nothing on the calibration prompts. With 1, every head gets the pattern
            with the least work.
        kv_groups: whether the heads that share keys get the same pattern.

    Raises:
        UsageError: the budget is not a number from 0 to 1.
    """
    if not 0 <= budget <= 1:
        raise UsageError(f"a budget is a share of lost output from 0 to 1, got {budget}")
    model = statistics.model
    error = _errors(statistics)
    pairs = statistics.pairs.sum(0)
    group = model.heads // model.kv_heads if kv_groups else 1
    steps = [
        step
        for layer in range(model.layers)
        for head in range(0, model.heads, group)
        for step in _hull_steps(layer, head, group, pairs[layer], error[layer])
    ]
    patterns = [[Pattern.DENSE] * model.heads for _ in range(model.layers)]
    limit, spent = math.inf if budget == 1 else budget**2, 0.0
    for step in sorted(steps, key=lambda step: step.price):  # stable: a head's steps stay in order
        if spent + step.error > limit:
            break
        spent += step.error
        patterns[step.layer][step.head : step.head + group] = [step.pattern] * group
    loss = _lost_output(patterns, statistics)
    return _finish(
        statistics, patterns, BudgetDecision(budget=float(budget), lost_output=loss), kv_groups
    )


def plan_by_votes(
    statistics: AttentionStatistics,
    *,
    alpha: float | tuple[float, float] = 0.1,
    gamma_sink: float = 0.95,
    gamma_intra_image: float = 0.95,
    gamma_both: float = 0.95,
) -> HeadPlan:
    """Returns the plan for which the prompts vote, as in BlindSight.

    A pattern suffices for a prompt if it keeps at least `1 - alpha` of the attention mass. A head
    gets the cheapest pattern that suffices for a fraction `gamma` of the prompts. It is dense if
    there is no such pattern.

    Args:
        statistics: the statistics of the model.
        alpha: the share of the attention mass that a pattern may lose. Two numbers are for the
            first and the last layer; the share changes linearly with depth between them.
        gamma_sink: the fraction of the prompts for which the sink pattern must suffice.
        gamma_intra_image: the same fraction for the intra-image pattern.
        gamma_both: the same fraction for the pattern with both.

    Raises:
        UsageError: a threshold is not a number from 0 to 1.

    Source: BlindSight, arXiv:2507.09071, names the thresholds; the metric is ours.
    """
    first, last = (alpha, alpha) if isinstance(alpha, int | float) else alpha
    gammas = (gamma_sink, gamma_intra_image, gamma_both)
    for name, value in zip(
        ("alpha", "alpha", "gamma_sink", "gamma_intra_image", "gamma_both"),
        (first, last, *gammas),
        strict=True,
    ):
        if not 0 <= value <= 1:
            raise UsageError(f"{name} is a fraction from 0 to 1, got {value}")
    lost = torch.linspace(first, last, statistics.model.layers, dtype=torch.float64)
    enough = statistics.recall.double() >= 1 - lost[:, None, None]
    votes = enough.double().mean(0)  # [L, H, 3]
    patterns = [
        [
            next(
                (
                    pattern
                    for pattern, f, gamma in zip(SPARSE, head, gammas, strict=True)
                    if f >= gamma
                ),
                Pattern.DENSE,
            )
            for head in layer
        ]
        for layer in votes.tolist()
    ]
    decision = VoteDecision(
        alpha=(float(first), float(last)),
        gamma_sink=float(gamma_sink),
        gamma_intra_image=float(gamma_intra_image),
        gamma_both=float(gamma_both),
    )
    return _finish(statistics, patterns, decision, kv_groups=False)


def sweep(
    statistics: AttentionStatistics, budgets: Iterable[float], *, kv_groups: bool = False
) -> list[SweepPoint]:
    """Returns one plan for each budget, for a curve. It needs no model.

    Raises:
        UsageError: a budget is not a number from 0 to 1.
    """
    points = []
    for budget in budgets:
        chosen = plan(statistics, budget=budget, kv_groups=kv_groups)
        loss = _lost_output(chosen.patterns, statistics)
        points.append(SweepPoint(budget, chosen, density(chosen, statistics), loss))
    return points


def lost_output(plan: HeadPlan, statistics: AttentionStatistics) -> float:
    """Predicts which share of the model's output a plan changes, 0 to 1.

    lost = min(1, sqrt(sum over layers, heads of  s[layer] * e[layer, head, pattern]))

    Here `e` is `AttentionStatistics.relative_error`, the share of a layer's attention output that
    the pattern of a head changes at image rows. `s` is `AttentionStatistics.sensitivity`, the
    change of the answer per unit of that error. The result predicts the relative change of the
    logits of the first token. The formula assumes that the errors are small and uncorrelated.

    Raises:
        PlanError: the plan and the statistics are of different models or sinks.
    """
    _check(plan, statistics)
    return _lost_output(plan.patterns, statistics)


def density(plan: HeadPlan, statistics: AttentionStatistics) -> float:
    """Returns the share of the dense model's pairs of query and key that a plan visits, 0 to 1.

    The pairs are summed over all layers, heads and calibration prompts.

    Raises:
        PlanError: the plan and the statistics are of different models or sinks.
    """
    _check(plan, statistics)
    return _density(plan.patterns, statistics)


@dataclass(frozen=True)
class _Step:
    """A step that makes one head, or the heads of one group, cheaper.

    Attributes:
        layer: the layer of the heads.
        head: the first of the heads.
        pattern: the pattern that the heads get.
        error: the amount that the step adds to the squared lost output.
        price: the added error per saved pair.
    """

    layer: int
    head: int
    pattern: Pattern
    error: float
    price: float


def _hull_steps(layer: int, head: int, group: int, pairs: Tensor, errors: Tensor) -> list[_Step]:
    """Returns the steps along the lower convex hull, from dense to cheap. Prices never fall.

    Args:
        layer: the layer of the heads.
        head: the first head that is decided.
        group: the number of heads that are decided together.
        pairs: int64 [4], the visible pairs of one head for each pattern.
        errors: float64 [H, 4], the errors of all heads of the layer for each pattern.
    """
    work = (pairs * group).tolist()
    error = errors[head : head + group].sum(0).tolist()
    steps: list[_Step] = []
    here = Pattern.DENSE
    while True:
        cheaper = [pattern for pattern in Pattern if work[pattern] < work[here]]
        if not cheaper:
            return steps
        prices = {
            pattern: max(error[pattern] - error[here], 0.0) / (work[here] - work[pattern])
            for pattern in cheaper
        }
        # Among equal prices the longest step wins, so that points on one line make one step.
        best = min(cheaper, key=lambda pattern: (prices[pattern], work[pattern], error[pattern]))
        added = max(error[best] - error[here], 0.0)
        # Rounding must not make a later step cheaper than an earlier one.
        price = max(prices[best], steps[-1].price if steps else 0.0)
        steps.append(_Step(layer, head, best, added, price))
        here = best


def _errors(statistics: AttentionStatistics) -> Tensor:
    """Returns what each head loses with each pattern, dense included: float64 [L, H, 4]."""
    error = statistics.lost_output()
    return torch.cat([error, torch.zeros_like(error[..., :1])], 2)


def _lost_output(patterns: Sequence[Sequence[Pattern]], statistics: AttentionStatistics) -> float:
    chosen = torch.tensor([[int(pattern) for pattern in row] for row in patterns])
    error = _errors(statistics).gather(2, chosen[:, :, None]).sum()
    return min(1.0, math.sqrt(float(error)))


def _density(patterns: Sequence[Sequence[Pattern]], statistics: AttentionStatistics) -> float:
    pairs = statistics.pairs.sum(0).tolist()
    visited = sum(pairs[layer][head] for layer, row in enumerate(patterns) for head in row)
    return visited / sum(
        pairs[layer][Pattern.DENSE] * len(row) for layer, row in enumerate(patterns)
    )


def _check(plan: HeadPlan, statistics: AttentionStatistics) -> None:
    """Raises PlanError unless plan and statistics have the same model and the same sink rule."""
    differences = plan.model.differences(statistics.model)
    if plan.sinks != statistics.sinks:
        differences.append(f"sinks: {plan.sinks}, {statistics.sinks}")
    if differences:
        raise PlanError(
            "the plan and the statistics do not belong together (the plan's value first, then "
            f"that of the statistics): {'; '.join(differences)}; use the statistics from which "
            "the plan was decided, or plan again"
        )


def _finish(
    statistics: AttentionStatistics,
    patterns: Sequence[Sequence[Pattern]],
    decision: BudgetDecision | VoteDecision,
    kv_groups: bool,
) -> HeadPlan:
    """Makes a plan from its patterns, with a summary of the calibration."""
    images = [record.images for record in statistics.prompts]
    recall = statistics.recall.double().mean((0, 1, 2)).clamp(max=1).tolist()
    summary = CalibrationSummary(
        prompts=len(statistics.prompts),
        fewest_images=min(images),
        most_images=max(images),
        tasks=dict(Counter(record.task for record in statistics.prompts)),
        density=_density(patterns, statistics),
        recall=PatternRecall(sink=recall[0], intra_image=recall[1], intra_image_sink=recall[2]),
        statistics_sha256=statistics.content_hash(),
    )
    return HeadPlan(
        model=statistics.model,
        sinks=statistics.sinks,
        patterns=tuple(map(tuple, patterns)),
        kv_groups=kv_groups,
        decision=decision,
        calibration=summary,
    )
