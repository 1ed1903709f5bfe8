"""What verification found, in words and tables: the sections of a report's page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from photomask.attention.head_plan import HeadPlan
from photomask.attention.patterns import Pattern
from photomask.attention.verification.documents import CurvePoint, TaskResult
from photomask.report import Cell, Column, Figure, Row, Section, Tone

_TASKS = (
    Column("task", number=False),
    Column("questions"),
    Column("dense"),
    Column("sparse"),
    Column("lost"),
    Column("95 % interval"),
    Column("p"),
)
_CURVE = (
    Column("budget"),
    Column("predicted"),
    Column("lost output"),
    Column("density"),
    Column("accuracy"),
    Column("worst task loses"),
    Column("divergence"),
)
_PATTERNS = (Column("pattern", number=False), Column("heads"), Column("share"))


def task_section(tasks: Sequence[TaskResult], pictures: dict[str, Callable[[], str]]) -> Section:
    """Returns a row for each task."""
    text = (
        "The same questions, answered by both models with greedy decoding. The interval is that of "
        "the paired difference; p is McNemar's: how likely two equally good models differ so much."
    )
    figure = _figure(
        pictures, "tasks", "Accuracy per task", "Bars of both models with 95 % Wilson intervals."
    )
    return Section("Tasks", text, _TASKS, [_task_row(task) for task in tasks], figure)


def _task_row(task: TaskResult) -> Row:
    low, high = task.loss_interval
    tone = Tone.PLAIN if low <= 0 <= high else Tone.WARN
    return (
        task.task,
        f"{task.questions:,}",
        Cell(f"{task.dense_accuracy:.1f} %", bar=task.dense_accuracy / 100),
        Cell(f"{task.sparse_accuracy:.1f} %", bar=task.sparse_accuracy / 100),
        Cell(f"{task.loss:+.1f}", tone),
        f"{low:+.1f} to {high:+.1f}",
        f"{task.p_value:.2f}",
    )


def plan_section(plan: HeadPlan, pictures: dict[str, Callable[[], str]]) -> Section:
    """Returns a row for each pattern."""
    rows: list[Row] = []
    cells = [pattern for layer in plan.patterns for pattern in layer]
    for pattern in reversed(Pattern):
        count = cells.count(pattern)
        share = count / len(cells)
        rows.append((pattern.label, f"{count:,}", Cell(f"{100 * share:.1f} %", bar=share)))
    figures = _figure(
        pictures, "heads", "The plan", "One cell a head; the darker, the more it sees."
    ) + _figure(
        pictures,
        "mass",
        "Where image tokens look",
        "Mean attention mass per head on each class of key, over image rows with an earlier image; "
        "the number is the mean over all heads.",
    )
    return Section("Heads", "", _PATTERNS, rows, figures)


def curve_section(curve: Sequence[CurvePoint], pictures: dict[str, Callable[[], str]]) -> Section:
    """Returns a row for each budget."""
    rows: list[Row] = [
        (
            f"{point.budget:g}",
            f"{point.predicted:.3f}",
            f"{point.lost_output:.3f}",
            Cell(f"{100 * point.density:.1f} %", bar=point.density),
            "–" if point.accuracy is None else f"{point.accuracy:.2f} %",
            "–" if point.worst_loss is None else f"{point.worst_loss:+.1f}",
            f"{point.divergence:.2g}",
        )
        for point in curve
    ]
    figure = _figure(
        pictures,
        "curve",
        "Accuracy against density",
        "Every point is a plan made from the same statistics with another budget; "
        f"{curve[0].prompts} of the prompts each.",
    )
    return Section("Budgets", "", _CURVE, rows, figure)


def _figure(
    pictures: dict[str, Callable[[], str]], name: str, title: str, caption: str
) -> tuple[Figure, ...]:
    return (Figure(title, caption, pictures[name]),) if name in pictures else ()
