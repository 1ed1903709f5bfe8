"""What verification found, in words and tables: the sections of a report's page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from photomask.attention.head_plan import HeadPlan
from photomask.attention.patterns import Pattern
from photomask.attention.verification.documents import (
    ChangedAnswer,
    CurvePoint,
    PairCount,
    TaskResult,
)
from photomask.attention.verification.significance import interval_verdict
from photomask.report import Cell, Column, Figure, Row, Section, Tone, verdict_cell

LONGEST_CELL = 60
"""Characters of a prompt that its row shows; the whole is shown when pointed at."""

_TASKS = (
    Column("task", number=False),
    Column("questions"),
    Column("dense", meaning="Questions that the dense model answers rightly."),
    Column("95 % of dense", number=False, in_terminal=False, meaning="Wilson interval."),
    Column("sparse", meaning="Questions that the sparse model answers rightly."),
    Column("95 % of sparse", number=False, in_terminal=False, meaning="Wilson interval."),
    Column("lost", meaning="Points of accuracy lost; negative where the sparse model is better."),
    Column(
        "95 % of lost",
        number=False,
        meaning="Interval of the paired difference; the verdict is about all of it.",
    ),
    Column("p", meaning="McNemar's test: how likely two equally good models differ so much."),
    Column(
        "verdict",
        number=False,
        meaning="Not decided where the limit lies inside the interval, for want of questions.",
    ),
)
_CHANGES = (
    Column("prompt", meaning="Its place among the prompts, from 0."),
    Column("task", number=False),
    Column("pictures", in_terminal=False),
    Column("text", number=False, in_terminal=False),
    Column("expected", number=False),
    Column("dense says", number=False, meaning="Up to the first token that is not expected."),
    Column("sparse says", number=False, meaning="Up to the first token that is not expected."),
    Column("became", number=False),
)
_IMAGES = (
    Column("image", number=False, meaning="Its place in the prompt."),
    Column("prompts", meaning="How many prompts have it."),
    Column("pairs, dense", meaning="Of the rows of the image, all layers and heads."),
    Column("pairs, sparse", meaning="The same, by the plan."),
    Column("computed", meaning="Share of the pairs that the plan computes."),
)
_LAYERS = (
    Column("layer", number=False),
    *(Column(f"{pattern.label} heads", in_terminal=False) for pattern in reversed(Pattern)),
    Column("computed", meaning="Share of the pairs that the plan computes, rows of text included."),
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
_PATTERNS = (
    Column("pattern", number=False),
    Column("heads"),
    Column("share", meaning="Of all heads."),
    Column("pairs of an image's rows", meaning="What a head of this pattern computes of them."),
)


def task_section(
    tasks: Sequence[TaskResult], limit: float | None, pictures: dict[str, Callable[[], str]]
) -> Section:
    """Returns a row for each task.

    Args:
        tasks: that were answered.
        limit: points that a task may lose; None where a report does not say.
        pictures: what draws each picture.
    """
    text = "The same questions, answered by both models with greedy decoding."
    if limit is not None:
        text += f" A task may lose {limit:g} points."
    figure = _figure(
        pictures, "tasks", "Accuracy per task", "Bars of both models with 95 % Wilson intervals."
    )
    return Section("Tasks", text, _TASKS, [_task_row(task, limit) for task in tasks], figure)


def _task_row(task: TaskResult, limit: float | None) -> Row:
    low, high = task.loss_interval
    tone = Tone.PLAIN if low <= 0 <= high else Tone.WARN
    return (
        task.task,
        f"{task.questions:,}",
        Cell(f"{task.dense_accuracy:.1f} %", bar=task.dense_accuracy / 100),
        Cell("{:.1f} to {:.1f}".format(*task.dense_interval), Tone.QUIET),
        Cell(f"{task.sparse_accuracy:.1f} %", bar=task.sparse_accuracy / 100),
        Cell("{:.1f} to {:.1f}".format(*task.sparse_interval), Tone.QUIET),
        Cell(f"{task.loss:+.1f}", tone),
        f"{low:+.1f} to {high:+.1f}",
        Cell(f"{task.p_value:.2f}", sort=task.p_value),
        "–" if limit is None else verdict_cell(interval_verdict(task.loss_interval, limit)),
    )


def changes_section(count: int, changes: Sequence[ChangedAnswer], prompts: int) -> Section:
    """Returns a row for each of some prompts whose answer changed."""
    text = f"{count:,} of {prompts:,} prompts get another answer from the sparse model."
    if len(changes) < count:
        text += f" {len(changes)} of them are shown, those that became wrong first."
    rows: list[Row] = [
        (
            str(change.prompt),
            change.task,
            str(change.pictures),
            Cell(_shortened(change.text), hint=change.text),
            "–" if change.expected is None else change.expected,
            change.dense,
            change.sparse,
            _became(change),
        )
        for change in changes
    ]
    return Section("Changed answers", text, _CHANGES, rows, in_terminal=False)


def _became(change: ChangedAnswer) -> Cell:
    if change.expected is None:
        return Cell("other", Tone.QUIET)
    if change.dense_right:
        return Cell("wrong", Tone.BAD)
    return Cell("right", Tone.GOOD) if change.sparse_right else Cell("wrong in another way")


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"


def plan_section(
    plan: HeadPlan, pairs: Sequence[PairCount], pictures: dict[str, Callable[[], str]]
) -> Section:
    """Returns a row for each pattern.

    Args:
        plan: what was verified.
        pairs: of each pattern; none where a report does not say.
        pictures: what draws each picture.
    """
    rows: list[Row] = []
    cells = [pattern for layer in plan.patterns for pattern in layer]
    for pattern in reversed(Pattern):
        count = cells.count(pattern)
        share = count / len(cells)
        seen = pairs[pattern].density if pairs else None
        rows.append(
            (
                pattern.label,
                f"{count:,}",
                Cell(f"{100 * share:.1f} %", bar=share),
                "–" if seen is None else Cell(f"{100 * seen:.1f} %", bar=seen),
            )
        )
    figures = _figure(
        pictures,
        "heads",
        "The plan",
        "One cell a head; the stronger its colour, the more the head sees.",
    ) + _figure(
        pictures,
        "mass",
        "Where image tokens look",
        "Mean attention mass per head on each class of key, over image rows with an earlier image; "
        "the stronger the colour, the more. The number is the mean over all heads.",
    )
    return Section("Heads", "", _PATTERNS, rows, figures)


def image_section(images: Sequence[PairCount]) -> Section:
    """Returns a row for each place of an image in its prompt."""
    text = (
        "Query-key pairs of the rows of each image. The first image has no other image before it, "
        "so that a plan can leave out little there; the later an image comes, the more."
    )
    rows: list[Row] = [
        (
            f"image {place}",
            f"{found.prompts:,}",
            f"{found.causal:,}",
            f"{found.visible:,}",
            Cell(f"{100 * found.density:.1f} %", bar=found.density),
        )
        for place, found in enumerate(images, 1)
    ]
    return Section("Pairs of each image", text, _IMAGES, rows)


def layer_section(plan: HeadPlan, layers: Sequence[PairCount]) -> Section:
    """Returns a row for each layer: its heads by pattern, and what they compute."""
    rows: list[Row] = [
        (
            f"layer {number}",
            *(str(row.count(pattern)) for pattern in reversed(Pattern)),
            Cell(f"{100 * found.density:.1f} %", bar=found.density),
        )
        for number, (row, found) in enumerate(zip(plan.patterns, layers, strict=True))
    ]
    text = "How many heads of each layer have which pattern, and which share of the pairs is left."
    return Section("Pairs of each layer", text, _LAYERS, rows, in_terminal=False)


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
