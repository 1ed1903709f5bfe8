"""Draws what a program costs: its roofline, and how busy each layer keeps the array."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from photomask.chip.cost.estimates import HardwareReport, StepEstimate
from photomask.report import Drawing, Ink, check_drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FULL = 9.6
"""The width of a picture in inches."""
LABELLED = 48
"""If there are more layers than this, only some of them are named along an axis."""
NAMED_POINTS = 8
"""This many points of the roofline are named: those that take the most cycles."""
SMALLEST_GAP = 0.05
"""The smallest distance between two names beside points, as a part of the picture's height."""


def hardware_figures(report: HardwareReport) -> dict[str, Callable[[], str]]:
    """Returns a function for each picture that draws it, by name.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    check_drawing()
    if not products_of(report):
        return {}
    return {
        "roofline": partial(draw_roofline, report),
        "utilization": partial(draw_utilization, report),
    }


def products_of(report: HardwareReport) -> list[StepEstimate]:
    """Returns the steps that run on the array."""
    return [step for step in report.steps if step.costs.multiply_accumulates]


def draw_roofline(report: HardwareReport) -> str:
    """Returns a picture of speed against arithmetic intensity.

    The speed is in multiply-accumulates per cycle, the intensity in multiply-accumulates per byte
    of external memory. No layer lies above the roof. The roof is as high as the number of cells of
    the array; to the left of the ridge it is as steep as the memory is fast.

    Source: Williams et al. 2009, "Roofline", Communications of the ACM 52(4).
    """
    steps, machine = products_of(report), report.accelerator
    intensity = np.array([s.costs.multiply_accumulates / s.costs.external.total for s in steps])
    speed = np.array([s.costs.multiply_accumulates / s.costs.cycles.total for s in steps])
    cycles = np.array([s.costs.cycles.total for s in steps])
    ridge = machine.cells / machine.memory_bytes_per_cycle
    left, right = min(intensity.min(), ridge) / 2, max(intensity.max(), ridge) * 4
    bottom, top = min(speed.min() / 2, machine.cells / 20), machine.cells * 2.2
    with Drawing(FULL, 3.6, "roofline") as drawing:
        axes = drawing.figure.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        roof = np.array([left, ridge, right])
        axes.plot(
            roof,
            np.minimum(roof * machine.memory_bytes_per_cycle, machine.cells),
            color=Ink.BAD.value,
            linewidth=1.0,
        )
        axes.text(
            ridge, machine.cells * 1.08, f"{machine.cells} cells",
            ha="left", va="bottom", color=Ink.BAD.value,
        )  # fmt: skip
        axes.scatter(
            intensity,
            speed,
            s=12 + 120 * cycles / cycles.max(),
            color=Ink.ACCENT.value,
            alpha=0.55,
            linewidths=0,
            zorder=3,
        )
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        _name_points(axes, steps, intensity, speed, cycles)
        _plain_decades(axes)
        axes.set_xlabel("multiply-accumulates for each byte of external memory")
        axes.set_title(
            f"multiply-accumulates a cycle; memory moves {machine.memory_bytes_per_cycle:g} bytes "
            "a cycle; the area of a point is its time"
        )
    return drawing.svg


def _name_points(
    axes: "Axes",
    steps: list[StepEstimate],
    intensity: np.ndarray,
    speed: np.ndarray,
    cycles: np.ndarray,
) -> None:
    """Writes the names of the slowest points at the right, with lines to the points."""
    alike: dict[tuple[float, float], list[int]] = {}
    for place in range(len(steps)):
        alike.setdefault((intensity[place], speed[place]), []).append(place)
    slowest = sorted(alike.values(), key=lambda places: -cycles[places].sum())[:NAMED_POINTS]
    by_height = sorted(slowest, key=lambda places: (-speed[places[0]], -intensity[places[0]]))
    bottom, top = np.log10(axes.get_ylim())
    exact = np.log10([speed[places[0]] for places in by_height])
    heights = _spread(exact, SMALLEST_GAP * float(top - bottom))
    for places, height in zip(by_height, heights, strict=True):
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        axes.annotate(
            shortened(steps[places[0]].step, 30) + more,
            (intensity[places[0]], speed[places[0]]),
            xytext=(1.01, 10**height),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=6.5,
            color=Ink.MUTED.value,
            annotation_clip=False,
            zorder=1,
            arrowprops={"arrowstyle": "-", "color": Ink.LINE.value, "linewidth": 0.6},
        )


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Returns descending heights at least `gap` apart, all moved together to stay centred."""
    placed = heights.copy()
    for position in range(1, len(placed)):
        placed[position] = min(placed[position], placed[position - 1] - gap)
    return placed + (heights.mean() - placed.mean())


def draw_utilization(report: HardwareReport) -> str:
    """Returns a picture of how each layer uses the cells' cycles, in percent.

    The parts are multiplication, and the three ways in which cycles are lost.
    """
    steps, cells = products_of(report), report.accelerator.cells
    total = np.array([step.costs.cycles.total for step in steps], dtype=float)
    busy = np.array([step.costs.multiply_accumulates for step in steps]) / cells
    stall = np.array([step.costs.cycles.stall for step in steps])
    turning = np.array([step.costs.cycles.load + step.costs.cycles.fill_drain for step in steps])
    idle = total - busy - stall - turning
    parts = (
        ("multiplying", busy, Ink.ACCENT.value, 0.85),
        ("cells without work", idle, Ink.ACCENT.value, 0.3),
        ("loading, filling, draining", turning, Ink.MUTED.value, 0.35),
        ("waiting for memory", stall, Ink.BAD.value, 0.6),
    )
    positions, base = np.arange(len(steps)), np.zeros(len(steps))
    with Drawing(FULL, 3.3, "utilization") as drawing:
        axes = drawing.figure.add_subplot()
        for label, values, color, alpha in parts:
            share = 100 * np.maximum(values, 0) / total
            axes.bar(
                positions, share, bottom=base, width=0.8,
                color=color, alpha=alpha, linewidth=0, label=label,
            )  # fmt: skip
            base = base + share
        axes.set_ylim(0, 100)
        axes.set_title("% of the time of all cells")
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, ncols=4, fontsize=7.5,
            handlelength=1.0, handletextpad=0.4, borderaxespad=0.2,
        )  # fmt: skip
        name_layers(axes, [step.step for step in steps])
    return drawing.svg


def name_layers(axes: "Axes", names: list[str]) -> None:
    """Writes names along the horizontal axis; if there are many, it writes every n-th."""
    every = -(-len(names) // LABELLED)
    shown = range(0, len(names), every)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_xticks(list(shown), [shortened(names[n], 28) for n in shown])
    axes.tick_params(axis="x", labelrotation=90, labelsize=6.5)


def shortened(name: str, length: int) -> str:
    """Returns the end of a step's name, without the suffix of accumulators.

    The end is kept because it tells layers apart.
    """
    name = name.removesuffix(".accumulator")
    return name if len(name) <= length else "…" + name[-(length - 1) :]


def _plain_decades(axes: "Axes") -> None:
    """Writes 1, 10, 100 instead of powers, and removes the minor marks."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(NullLocator())
