"""Draws how many times as fast as the best dense kernel prefill is, from the measured rows.

Beside each plan stands its ideal, dashed: the speed of that dense kernel on the pairs that the plan
sees, and on no others.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from prefill.points import MAIN_IMAGE, Point, read_points
from rows import FOLDER, read

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "prefill_attention.png"
COLORS = ("#b5402a", "#d08a1d", "#3d7f4e", "#2a6f97", "#4b4b4b")


def main() -> int:
    """Writes the picture, if there are rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=FOLDER)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    found = read_points(read("prefill_attention", arguments.results))
    points = [each for each in found if each.is_plan and each.image == MAIN_IMAGE and each.speed]
    if not points:
        print("no rows of prefill_attention.py: nothing to draw")
        return 0
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(points).savefig(arguments.picture, metadata={"Software": None})
    return 0


def draw(points: Sequence[Point]) -> Figure:
    """Draws one panel for each shape."""
    shapes = list(dict.fromkeys(point.shape for point in points))
    figure = Figure(figsize=(5.2 * len(shapes), 4.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(shapes), squeeze=False)[0]
    for axes, shape in zip(panels, shapes, strict=True):
        draw_shape(axes, shape, [point for point in points if point.shape == shape])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_shape(axes: Axes, shape: str, points: Sequence[Point]) -> None:
    """Draws the speed of each plan over the length, and its ideal."""
    for number, percent in enumerate(sorted({point.percent for point in points})):
        plan = [point for point in points if point.percent == percent]
        tokens, color = [point.tokens for point in plan], COLORS[number % len(COLORS)]
        speeds = [point.speed for point in plan]
        axes.plot(tokens, speeds, marker="o", color=color, label=f"{percent} % dense heads")
        axes.plot(tokens, [1 / point.density for point in plan if point.density], "--", color=color)
    lengths = sorted({point.tokens for point in points})
    axes.plot([], [], "--", color="black", label="ideal: visible pairs alone")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", title=shape, xlabel="tokens of the prompt")
    axes.set_ylabel("times as fast as the best dense kernel")
    axes.xaxis.set_major_locator(FixedLocator(lengths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{length:,}" for length in lengths])
    ticks = [tick for tick in (0.5, 1, 2, 4, 8, 16, 32) if tick <= 1.2 * highest(points)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticklabels([f"{tick:g}×" for tick in ticks])
    axes.grid(alpha=0.3)


def highest(points: Sequence[Point]) -> float:
    """Returns the largest ideal."""
    return max((1 / point.density for point in points if point.density), default=1.0)


if __name__ == "__main__":
    sys.exit(main())
