"""A verification report as a page: what is said first, and what stands in the tables."""

from __future__ import annotations

from collections.abc import Callable

from photomask.attention.patterns import Pattern
from photomask.attention.verification.documents import AttentionReport, TaskResult
from photomask.report import Cell, Column, Figure, Page, Row, Section, Tone, check_section

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


def page_of(report: AttentionReport, figures: dict[str, Callable[[], str]] | None = None) -> Page:
    """Puts a report into words and tables.

    Args:
        report: what was found.
        figures: what draws each picture, by the names that `pictures.figures_of` gives.
    """
    pictures = figures or {}
    plan = report.plan
    met = sum(check.passed for check in report.checks)
    word = report.verdict.upper()
    passed = {"passed": True, "failed": False, "not decided": None}[report.verdict]
    sections = [check_section(report.checks)]
    if report.tasks:
        sections.append(_task_section(report, pictures))
    sections.append(_plan_section(report, pictures))
    if report.curve:
        sections.append(_curve_section(report, pictures))
    return Page(
        title=f"Head plan for {plan.model.model_type}",
        verdict=f"{word}: {met} of {len(report.checks)} checks hold on {report.prompts:,} prompts",
        passed=passed,
        reasons=[str(check) for check in report.checks if not check.passed],
        facts=_facts(report),
        sections=sections,
        footer=f"model {plan.model.fingerprint[:16]} · {plan.decision.describe()}",
    )


def _facts(report: AttentionReport) -> list[tuple[str, str]]:
    facts = [("query-key pairs left, all heads", f"{100 * report.density:.1f} %")]
    if report.dense_accuracy is not None and report.sparse_accuracy is not None:
        facts.append(("accuracy, dense, mean over tasks", f"{report.dense_accuracy:.2f} %"))
        facts.append(("accuracy, sparse", f"{report.sparse_accuracy:.2f} %"))
    facts += [
        ("output lost, first token's logits", f"{report.lost_output:.3f}"),
        ("prompts with the same first token", f"{report.agreement:.1f} %"),
        ("divergence of the first token, mean", f"{report.divergence_mean:.2g} nats"),
        ("its 95th percentile", f"{report.divergence_p95:.2g} nats"),
        ("pictures a prompt", _range(report.images)),
        ("tokens a prompt", _range(report.tokens)),
        ("time, dense", f"{report.dense_seconds:.1f} s"),
        ("time, sparse", f"{report.sparse_seconds:.1f} s"),
    ]
    if report.literal_prompts:
        facts.append(("difference from literal masks", f"{report.literal_difference:.1e}"))
    return facts


def _range(ends: tuple[int, int]) -> str:
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,} to {ends[1]:,}"


def _task_section(report: AttentionReport, pictures: dict[str, Callable[[], str]]) -> Section:
    text = (
        "The same questions, answered by both models with greedy decoding. The interval is that of "
        "the paired difference; p is McNemar's: how likely two equally good models differ so much."
    )
    figure = _figure(
        pictures, "tasks", "Accuracy per task", "Bars of both models with 95 % Wilson intervals."
    )
    return Section("Tasks", text, _TASKS, [_task_row(task) for task in report.tasks], figure)


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


def _plan_section(report: AttentionReport, pictures: dict[str, Callable[[], str]]) -> Section:
    rows: list[Row] = []
    cells = [pattern for layer in report.plan.patterns for pattern in layer]
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


def _curve_section(report: AttentionReport, pictures: dict[str, Callable[[], str]]) -> Section:
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
        for point in report.curve
    ]
    figure = _figure(
        pictures,
        "curve",
        "Accuracy against density",
        "Every point is a plan made from the same statistics with another budget; "
        f"{report.curve[0].prompts} of the prompts each.",
    )
    return Section("Budgets", "", _CURVE, rows, figure)


def _figure(
    pictures: dict[str, Callable[[], str]], name: str, title: str, caption: str
) -> tuple[Figure, ...]:
    return (Figure(title, caption, pictures[name]),) if name in pictures else ()
