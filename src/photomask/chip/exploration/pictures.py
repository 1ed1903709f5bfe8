"""Draws the front: what each cost buys in accuracy."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from photomask.chip.exploration.points import METRICS, ExploredPoint, Metric
from photomask.chip.exploration.results import Exploration
from photomask.dependencies import OptionalPackage
from photomask.documents import write_file
from photomask.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OTHERS = "#b9bec6"
ACCENT = "#1f6feb"
PRESET = "#b35900"
MARKERS = "s^DvPXhp*<>"
ENDINGS = (".svg", ".png", ".pdf")
TWO_TICKS = 8.0
"""The ratio of the ends of an axis above which fewer ticks are enough."""
LOWEST_SHARE = 0.25
"""The share of the points, from the lowest up, that may lie below the frame."""


def save_front_picture(exploration: Exploration, path: str | Path) -> None:
    """Draws all measured points, those of the front, and the presets.

    There is one panel for each objective after the first, which is the vertical axis of all. The
    front is that over all objectives, so a panel alone shows points that look dominated. If the
    accuracy is the vertical axis, the least accurate quarter of the points may lie below the frame.

    Args:
        exploration: the trials.
        path: the path of the file, which ends with `.svg`, `.png` or `.pdf`.

    Raises:
        UsageError: the path has another ending, there is one objective, or nothing was measured.
        MissingDependencyError: matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise UsageError(
            f"a picture must be a .svg, .png or .pdf file, found {path.name!r}; change the ending"
        )
    first, *others = exploration.objectives
    if not others:
        raise UsageError("a picture of the front needs at least two objectives")
    if not exploration.measured:
        raise UsageError("no trial was measured, so there is no front to draw")
    with OptionalPackage("matplotlib", "report", "the picture of a search"):
        import matplotlib
        from matplotlib.figure import Figure
    with matplotlib.rc_context({"svg.hashsalt": "front", "font.size": 9.0}):
        figure = Figure(figsize=(0.8 + 3.8 * len(others), 4.0), layout="constrained")
        panels = figure.subplots(1, len(others), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, others, strict=True):
            _draw_panel(axes, exploration, metric, first)
        panels[0].set_ylabel(METRICS[first])
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        buffer = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(buffer, format=path.suffix[1:], metadata=metadata, dpi=150)
    write_file(path, buffer.getvalue())


def _draw_panel(axes: "Axes", exploration: Exploration, x: Metric, y: Metric) -> None:
    measured, front = exploration.measured, exploration.front().points
    presets = [point for point in measured if point.preset]
    axes.plot(*_places(measured, x, y), "o", color=OTHERS, markersize=3.5, label="measured")
    best = exploration.front((y, x)).points
    line = {"color": ACCENT, "linewidth": 0.9, "drawstyle": "steps-post"}
    axes.plot(*_places(best, x, y), "-", label="best at this cost", **line)
    axes.plot(*_places(front, x, y), "o", color=ACCENT, markersize=4.5, label="front")
    for preset, marker in zip(presets, itertools.cycle(MARKERS)):
        place = _places([preset], x, y)
        style = {"color": PRESET, "markersize": 6.5, "fillstyle": "none"}
        axes.plot(*place, marker, label=preset.preset, **style)
    _count_logarithmically(axes)
    axes.set_xlabel(METRICS[x])
    if y == "accuracy":
        axes.set_ylim(*_frame([point.figures().accuracy for point in measured]))
    axes.grid(visible=True, linewidth=0.4, color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)


def _count_logarithmically(axes: "Axes") -> None:
    """Makes the horizontal axis logarithmic, with a few whole numbers also below a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.margins(x=0.12)
    low, high = axes.get_xlim()
    few = (1.0, 2.0, 5.0) if high / low > TWO_TICKS else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axes.xaxis.set_major_locator(LogLocator(subs=few))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelrotation=30)


def _places(
    points: Sequence[ExploredPoint], x: Metric, y: Metric
) -> tuple[list[float], list[float]]:
    values = sorted(point.figures().values((x, y)) for point in points)
    return [value[0] for value in values], [value[1] for value in values]


def _frame(accuracies: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of the axis. A few broken points must not flatten all others."""
    ordered = sorted(accuracies)
    low, high = ordered[int(LOWEST_SHARE * len(ordered))], ordered[-1]
    room = max(1.0, 0.08 * (high - low))
    return low - room, high + room
