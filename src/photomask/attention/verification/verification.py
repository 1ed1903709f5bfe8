"""A plan beside the model that it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from photomask.attention.conversion import PlanHandler
from photomask.attention.encoding import EncodedPrompt, encode
from photomask.attention.head_plan import HeadPlan
from photomask.attention.patterns import Pattern
from photomask.attention.planning import lost_output as predict_loss
from photomask.attention.planning import plan as decide
from photomask.attention.plugin import attach
from photomask.attention.statistics import AttentionStatistics
from photomask.attention.verification.changes import changed_answers
from photomask.attention.verification.documents import CurvePoint, mean
from photomask.attention.verification.evaluation import (
    Answers,
    agreement,
    answer_all,
    answer_logits,
    balanced,
    compare_tasks,
    divergences,
    hash_prompts,
    lost_output,
)
from photomask.attention.verification.first_token import measure_first_token
from photomask.attention.verification.judging import judge
from photomask.attention.verification.proof import CountingHandler, LiteralHandler
from photomask.attention.verification.report import AttentionReport
from photomask.errors import DataError
from photomask.prompts import Prompt
from photomask.report import Progress, RunRecord, check_order, without_progress
from photomask.stages import stage

LITERAL_TOKENS = 2048
"""Prompts up to this length are also run with the mask written out."""

LITERAL_PROMPTS = 4
"""How many of them."""

CURVE_BUDGETS = (0.02, 0.05, 0.1, 1.0)
"""Budgets of the curve of accuracy against density."""


@stage(__name__, "verify")
def verify(
    model: nn.Module,
    plan: HeadPlan,
    processor: Any,
    prompts: Sequence[Prompt],
    *,
    statistics: AttentionStatistics | None = None,
    curve_prompts: int | None = None,
    mean_loss_limit: float = 0.8,
    task_loss_limit: float = 2.0,
    progress: Progress = without_progress,
) -> AttentionReport:
    """Answers prompts with the dense and with the sparse model, and compares.

    Args:
        model: the original.
        plan: decided for it.
        processor: of the model.
        prompts: held out from calibration; those with an answer count for accuracy.
        statistics: what the plan was made from; adds attention masses and the curve of accuracy
            against density over budgets.
        curve_prompts: how many of the prompts, as many of each task, the curve is drawn from; None
            for all. Each of its budgets answers them once.
        mean_loss_limit: points of accuracy that the mean over the tasks may lose.
        task_loss_limit: points that a task may lose.
        progress: shows how far the work has come.

    Returns:
        What was found; `report.verdict` is "passed", "failed" or "not decided". A loss of accuracy
        is judged by its 95 % interval: the check is passed where all of it is within the limit,
        failed where all of it is beyond, and else not decided, for want of questions. The largest
        logit may differ from the masks written out by 0.1 %, or twice what the dense model's own
        rounding makes of it; where every prompt is longer than 2,048 tokens, that is not decided.

    Raises:
        DataError: no prompt, or logits that are not finite.
        PlanError: the plan, or the statistics, are of another model.
        UsageError: arguments in another order.
    """
    check_order(model, plan, HeadPlan, "verify(model, plan, processor, prompts)")
    if not prompts:
        raise DataError("verification needs at least one prompt")
    plan.check(model)
    if statistics is not None:
        statistics.check(model)
    device = next(model.parameters()).device
    encoded = [encode(processor, prompt, device) for prompt in progress(prompts, "reading")]
    dense = answer_all(model, encoded, progress, "dense")
    counting = CountingHandler(plan)
    sparse = answer_all(attach(model, counting), encoded, progress, "sparse")
    difference, rounding, checked = literal_difference(model, plan, encoded)
    places = balanced(prompts, curve_prompts or len(prompts))
    chosen = [(prompts[place], encoded[place]) for place in places]
    changed, shown = changed_answers(prompts, dense, sparse, processor)
    divergence = divergences(dense, sparse)
    report = AttentionReport(
        plan=plan,
        prompts=len(prompts),
        images=_ends([len(prompt.images()) for prompt in prompts]),
        tokens=_ends([prompt.tokens for prompt in encoded]),
        tasks=tuple(compare_tasks(prompts, dense, sparse)),
        divergence_mean=float(divergence.mean()),
        divergence_p95=float(divergence.quantile(0.95)),
        lost_output=lost_output(dense, sparse),
        agreement=agreement(dense, sparse),
        density=counting.density,
        pairs_by_image=counting.pairs.by_image(),
        pairs_by_layer=counting.pairs.by_layer(),
        pairs_by_pattern=counting.pairs.by_pattern(),
        changed=changed,
        changed_answers=shown,
        first_token=measure_first_token(model, attach(model, PlanHandler(plan)), encoded, progress),
        literal_difference=difference,
        literal_prompts=checked,
        rounding=rounding,
        dense_seconds=dense.seconds,
        sparse_seconds=sparse.seconds,
        mass=() if statistics is None else _mass(statistics),
        curve=_curve(model, statistics, chosen, dense.at(places), progress),
        mean_loss_limit=mean_loss_limit,
        task_loss_limit=task_loss_limit,
        data_sha256=hash_prompts(encoded),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        run=RunRecord.here(device, ("transformers",)),
        checks=(),
    )
    return report.model_copy(update={"checks": judge(report, mean_loss_limit, task_loss_limit)})


def literal_difference(
    model: nn.Module, plan: HeadPlan, prompts: Sequence[EncodedPrompt]
) -> tuple[float, float, int]:
    """Compares what runs with the plan's masks written out, on the first short prompts.

    The same is done for the dense model, where nothing can differ but what its dtype rounds. That
    is measured without what is under test.

    Returns:
        The largest difference of a first-token logit, relative to the largest logit, for the plan
        and for the dense model, and over how many prompts; zeros where every prompt is longer than
        `LITERAL_TOKENS`.
    """
    short = [prompt for prompt in prompts if prompt.tokens <= LITERAL_TOKENS][:LITERAL_PROMPTS]
    dense = HeadPlan.uniform(model, Pattern.DENSE)
    found = _worst_difference(attach(model, CountingHandler(plan)), model, plan, short)
    return found, _worst_difference(model, model, dense, short), len(short)


def _worst_difference(
    running: nn.Module, model: nn.Module, plan: HeadPlan, prompts: Sequence[EncodedPrompt]
) -> float:
    """Compares a model's first-token logits with those of the masks of a plan written out."""
    literal, worst = attach(model, LiteralHandler(plan)), 0.0
    for prompt in prompts:
        expected, found = answer_logits(literal, prompt), answer_logits(running, prompt)
        worst = max(worst, float((found - expected).abs().max() / expected.abs().max()))
    return worst


def _ends(counts: Sequence[int]) -> tuple[int, int]:
    return min(counts), max(counts)


def _curve(
    model: nn.Module,
    statistics: AttentionStatistics | None,
    chosen: Sequence[tuple[Prompt, EncodedPrompt]],
    dense: Answers,
    progress: Progress,
) -> tuple[CurvePoint, ...]:
    """Answers prompts under every budget of the curve; none without statistics."""
    if statistics is None:
        return ()
    prompts, encoded = [prompt for prompt, _ in chosen], [each for _, each in chosen]
    points = []
    for budget in CURVE_BUDGETS:
        candidate = decide(statistics, budget=budget)
        counting = CountingHandler(candidate)
        label = f"budget {budget:g}"
        answers = answer_all(attach(model, counting), encoded, progress, label)
        tasks = compare_tasks(prompts, dense, answers)
        points.append(
            CurvePoint(
                budget=budget,
                prompts=len(prompts),
                predicted=predict_loss(candidate, statistics),
                lost_output=lost_output(dense, answers),
                density=counting.density,
                dense_accuracy=mean([task.dense_accuracy for task in tasks]),
                accuracy=mean([task.sparse_accuracy for task in tasks]),
                worst_loss=max((task.loss for task in tasks), default=None),
                divergence=float(divergences(dense, answers).mean()),
            )
        )
    return tuple(points)


def _mass(
    statistics: AttentionStatistics,
) -> tuple[tuple[tuple[float, float, float, float], ...], ...]:
    """Returns the mean attention mass by layer, head and class of key."""
    return tuple(
        tuple((head[0], head[1], head[2], head[3]) for head in layer)
        for layer in statistics.mass.mean(0).tolist()
    )
