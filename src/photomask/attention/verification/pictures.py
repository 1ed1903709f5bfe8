"""The pictures of a verification report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from photomask.attention.head_plan import HeadPlan
from photomask.attention.patterns import Pattern
from photomask.attention.verification.documents import CurvePoint, TaskResult
from photomask.attention.verification.report import AttentionReport
from photomask.report import Drawing, Ink, check_drawing, row_anchor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FULL, HALF = 9.6, 4.7
"""Widths in inches."""

STEPS = 20
"""Strengths of colour in the maps of attention mass."""

MASS_CLASSES = ("sinks", "text", "own image", "other images")

_STRENGTHS = {
    Pattern.DENSE: 1.0,
    Pattern.INTRA_IMAGE_SINK: 0.6,
    Pattern.INTRA_IMAGE: 0.32,
    Pattern.SINK: 0.13,
}
"""How strong a colour stands for a pattern: one colour in steps, so that more is more on light and
on dark paper."""


def figures_of(report: AttentionReport) -> dict[str, Callable[[], str]]:
    """Returns what draws each picture that there is, by name.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    check_drawing()
    figures: dict[str, Callable[[], str]] = {"heads": partial(draw_heads, report.plan)}
    if report.mass:
        figures["mass"] = partial(draw_mass, np.array(report.mass))
    if report.curve:
        figures["curve"] = partial(draw_curve, report)
    if report.tasks:
        figures["tasks"] = partial(draw_tasks, report.tasks)
    return figures


def draw_heads(plan: HeadPlan) -> str:
    """Draws the plan as a map with a row for each layer and a cell for each head."""
    layers, heads = len(plan.patterns), len(plan.patterns[0])
    cell = min(0.32, (HALF - 0.6) / heads, 9.0 / layers)
    with Drawing(HALF, layers * cell + 1.1, "heads") as drawing:
        axes = drawing.figure.add_subplot()
        for pattern in reversed(Pattern):
            places = [
                (head, layer)
                for layer, row in enumerate(plan.patterns)
                for head, found in enumerate(row)
                if found is pattern
            ]
            _draw_cells(axes, places, _STRENGTHS[pattern], f"{pattern.label} ({len(places)})")
        _map_axes(axes, layers, heads)
        axes.set_aspect("equal")
        drawing.figure.legend(loc="outside lower left", frameon=False, ncols=2)
    return drawing.svg


def draw_mass(mass: np.ndarray) -> str:
    """Draws the mean attention mass of the image rows of each head, by class of key.

    Args:
        mass: [layers, heads, classes], shares that add up to 1.
    """
    layers, heads, classes = mass.shape
    cell = min(0.2, 1.9 / heads, 4.5 / layers)
    with Drawing(HALF, 2 * (layers * cell + 0.6), "mass") as drawing:
        grid = drawing.figure.subplots(2, classes // 2, sharex=True, sharey=True, squeeze=False)
        panels = [axes for row in grid for axes in row]
        for index, (axes, name) in enumerate(zip(panels, MASS_CLASSES, strict=True)):
            steps = np.rint(STEPS * mass[..., index]).clip(1, STEPS).astype(int)
            for step in np.unique(steps):
                places = [(int(head), int(layer)) for layer, head in np.argwhere(steps == step)]
                _draw_cells(axes, places, step / STEPS)
            _map_axes(axes, layers, heads)
            axes.set_aspect("equal")
            axes.set_title(f"{name}: {100 * mass[..., index].mean():.0f} %")
            if index % 2:
                axes.set_ylabel("")
            if index < classes // 2:
                axes.set_xlabel("")
    return drawing.svg


def draw_curve(report: AttentionReport) -> str:
    """Draws accuracy and divergence of the first token against density, over budgets."""
    curve: Sequence[CurvePoint] = report.curve
    density = [100 * point.density for point in curve]
    scored = report.dense_accuracy is not None
    with Drawing(FULL, 2.8, "curve") as drawing:
        panels = drawing.figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
        if scored:
            _draw_accuracies(panels[0], report, density)
        axes = panels[-1]
        axes.plot(density, [point.divergence for point in curve], "o-", color=Ink.ACCENT.value)
        axes.set_title("divergence of the first token, nats")
        for axes in panels:
            axes.set_xlabel("visible query-key pairs, % of causal")
            axes.axvline(100 * report.density, color=Ink.MUTED.value, linewidth=0.8, zorder=0)
            axes.text(
                100 * report.density, axes.get_ylim()[0], " this plan", fontsize=7, va="bottom"
            )
    return drawing.svg


def _draw_accuracies(axes: Axes, report: AttentionReport, density: Sequence[float]) -> None:
    """Draws the accuracy of each budget, its name beside it, and that of the dense model."""
    points = [
        (place, point.accuracy, point.budget)
        for place, point in zip(density, report.curve, strict=True)
        if point.accuracy is not None
    ]
    axes.plot([p[0] for p in points], [p[1] for p in points], "o-", color=Ink.ACCENT.value)
    for place, accuracy, budget in points:
        axes.annotate(
            f"{budget:g}", (place, accuracy), (0, 5), textcoords="offset points", fontsize=7,
            ha="center",
        )  # fmt: skip
    dense = report.curve[0].dense_accuracy or 0.0
    axes.axhline(dense, color=Ink.BAD.value, linewidth=0.8, linestyle="--")
    axes.set_title(f"accuracy, %, by budget; dashed: dense model, {dense:.1f} %")
    axes.margins(y=0.25)


def draw_tasks(tasks: Sequence[TaskResult]) -> str:
    """Draws the accuracy of both models on each task, with 95 % confidence intervals."""
    positions = np.arange(len(tasks))
    with Drawing(FULL, 2.8, "tasks") as drawing:
        axes = drawing.figure.add_subplot()
        for shift, ink, label, values, intervals in (
            (
                -0.18,
                Ink.MUTED,
                "dense",
                [task.dense_accuracy for task in tasks],
                [task.dense_interval for task in tasks],
            ),
            (
                0.18,
                Ink.ACCENT,
                "sparse",
                [task.sparse_accuracy for task in tasks],
                [task.sparse_interval for task in tasks],
            ),
        ):
            heights = np.array(values)
            errors = np.abs(np.array(intervals).T - heights)
            bars = axes.bar(positions + shift, heights, 0.34, color=ink.value, label=label)
            for bar, task, (low, high) in zip(bars, tasks, intervals, strict=True):
                hint = f"{task.task}, {label}: {bar.get_height():.1f} % ({low:.1f} to {high:.1f})"
                bar.set_url(drawing.mark(hint, row_anchor("Tasks", task.task)))
            axes.errorbar(
                positions + shift,
                heights,
                errors,
                fmt="none",
                ecolor=Ink.TEXT.value,
                elinewidth=0.8,
                capsize=2,
            )
        axes.set_xticks(positions, [task.task for task in tasks])
        axes.set_ylim(0, 108)
        axes.set_title("accuracy, %")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=2)
    return drawing.svg


def _draw_cells(
    axes: Axes, places: Sequence[tuple[int, int]], strength: float, label: str = ""
) -> None:
    """Fills the cells of some heads, as one path, which takes fewer bytes than one a cell.

    Args:
        axes: of a map.
        places: head and layer of each cell.
        strength: opacity of the colour.
        label: for the legend; none where it is empty.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if label:
        axes.bar(0, 0, color=Ink.ACCENT.value, alpha=strength, label=label)
    if places:
        corners = np.array([(-0.44, -0.44), (0.44, -0.44), (0.44, 0.44), (-0.44, 0.44)])
        squares = [Path(corners + place, closed=False) for place in places]
        path = Path.make_compound_path(*squares)
        axes.add_patch(PathPatch(path, facecolor=Ink.ACCENT.value, alpha=strength, linewidth=0))


def _map_axes(axes: Axes, layers: int, heads: int) -> None:
    """Labels a layers x heads map, layer 0 on top."""
    axes.grid(visible=False)
    axes.set_xlim(-0.5, heads - 0.5)
    axes.set_ylim(layers - 0.5, -0.5)
    step = max(1, heads // 8)
    axes.set_xticks(range(0, heads, step))
    axes.set_yticks(range(0, layers, max(1, layers // 14)))
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
