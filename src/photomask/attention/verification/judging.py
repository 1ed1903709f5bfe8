"""The conditions of an attention report, and which of them its prompts can decide."""

from __future__ import annotations

import math

from photomask.attention.verification.report import AttentionReport
from photomask.attention.verification.significance import interval_verdict, mean_interval
from photomask.report import Check

LITERAL_LIMIT = 0.1
"""Percent of the largest logit by which what runs may differ from its mask written out, in a dtype
whose rounding is smaller."""

LITERAL_NAME = "difference from the mask written out, of the largest logit"


def judge(report: AttentionReport, mean_limit: float, task_limit: float) -> tuple[Check, ...]:
    """Returns the conditions of a verdict.

    Args:
        report: what was found.
        mean_limit: points of accuracy that the mean over the tasks may lose.
        task_limit: points that a task may lose.
    """
    return (_literal_check(report), *_accuracy_checks(report, mean_limit, task_limit))


def _literal_check(report: AttentionReport) -> Check:
    """Holds that what runs is what was planned, up to twice what the dense model rounds."""
    limit = max(LITERAL_LIMIT, 2 * 100 * report.rounding)
    check = Check.at_most(LITERAL_NAME, 100 * report.literal_difference, limit, "%")
    if report.literal_prompts:
        return check
    reason = "since every prompt is too long for a mask written out; add a short one"
    return check.left_open(reason, measured=False)


def _accuracy_checks(
    report: AttentionReport, mean_limit: float, task_limit: float
) -> tuple[Check, Check]:
    """Holds that the mean and the worst task lose no more than they may."""
    mean_name, task_name = "accuracy lost, mean over the tasks", "accuracy lost, worst task"
    if not report.tasks:
        reason = "since no prompt has an answer"
        checks = (
            Check.at_most(mean_name, 0, mean_limit, "points"),
            Check.at_most(task_name, 0, task_limit, "points"),
        )
        return checks[0].left_open(reason, measured=False), checks[1].left_open(
            reason, measured=False
        )
    mean_loss = sum(task.loss for task in report.tasks) / len(report.tasks)
    interval = mean_interval([task.loss_interval for task in report.tasks])
    questions = sum(task.questions for task in report.tasks)
    failing = max(report.tasks, key=lambda task: task.loss_interval[0])
    worst = max(report.tasks, key=lambda task: task.loss_interval[1])
    task = failing if failing.loss_interval[0] > task_limit else worst
    return (
        _loss_check(mean_name, mean_loss, interval, mean_limit, questions),
        _loss_check(
            f"accuracy lost, task {task.task!r}",
            task.loss,
            task.loss_interval,
            task_limit,
            task.questions,
        ),
    )


def _loss_check(
    name: str, loss: float, interval: tuple[float, float], limit: float, questions: int
) -> Check:
    """Judges a loss by the 95 % interval in which it lies.

    Args:
        name: of the condition.
        loss: found, in points.
        interval: of the loss, in points.
        limit: in points; decided only where it is outside the interval.
        questions: how many were asked.
    """
    low, high = interval
    verdict = interval_verdict(interval, limit)
    if verdict == "failed":
        return Check.at_most(f"{name}, at least (95 % interval)", low, limit, "points")
    if verdict == "passed":
        return Check.at_most(f"{name}, at most (95 % interval)", high, limit, "points")
    asked = "one question" if questions == 1 else f"{questions:,} questions"
    reason = f"since after {asked} the 95 % interval is {low:+.1f} to {high:+.1f} points"
    half, distance = (high - low) / 2, abs(limit - (low + high) / 2)
    if distance > half / 10:
        enough = math.ceil(questions * (half / distance) ** 2)
        reason += f"; some {_round_up(enough):,} like them would decide"
    return Check.at_most(name, loss, limit, "points").left_open(reason)


def _round_up(count: int) -> int:
    """Returns a number with two digits that are not zero, no smaller than the one given."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / unit) * unit
