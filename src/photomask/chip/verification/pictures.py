"""The pictures of a verification report."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from photomask.chip.verification.detail_pictures import draw_channels, draw_samples
from photomask.chip.verification.documents import LayerReport, MultiplierStudy
from photomask.chip.verification.layer_sections import LAYERS_TITLE
from photomask.chip.verification.program_graph import draw_program
from photomask.chip.verification.report import Report
from photomask.chip.verification.step_section import STEPS_TITLE
from photomask.chip.verification.tallies import BINS, MARGIN_BINS
from photomask.chip.verification.words import bare_db, gist
from photomask.report import Drawing, Ink, check_drawing, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FULL, HALF = 9.6, 4.7
"""Widths in inches."""
LABELLED = 48
"""With more layers than this, only some are named along an axis."""
ROW_INCHES = 0.2
LONGEST_INCHES = 11.0


def figures_of(report: Report) -> dict[str, Callable[[], str]]:
    """Returns what draws each picture that there is, by name.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    check_drawing()
    layers, bits = report.layers, report.target.accumulator_bits
    figures: dict[str, Callable[[], str]] = {
        "sqnr": partial(draw_sqnr, layers),
        "activations": partial(draw_activations, layers),
    }
    if any(layer.weight is not None for layer in layers):
        figures["weights"] = partial(draw_weights, layers)
    if any(layer.accumulator is not None for layer in layers):
        figures["accumulators"] = partial(draw_accumulators, layers, bits)
    if report.steps:
        outputs = [output.name for output in report.outputs]
        figures["program"] = partial(
            draw_program, STEPS_TITLE, report.inputs, report.steps, outputs
        )
    if any(layer.channels is not None for layer in layers):
        figures["channels"] = partial(draw_channels, LAYERS_TITLE, layers)
    pictured = [sample for sample in report.worst_samples if sample.picture is not None]
    if pictured:
        figures["samples"] = partial(draw_samples, pictured)
    if report.multipliers is not None:
        figures["multipliers"] = partial(draw_multipliers, report.multipliers)
    return figures


def draw_sqnr(layers: Sequence[LayerReport]) -> str:
    """Draws signal over noise, layer by layer in the order of computation."""
    values = np.array([layer.sqnr_db for layer in layers])
    shown = np.clip(values, -5, 75)
    weighted = np.array([layer.weight is not None for layer in layers])
    positions = np.arange(len(layers))
    with Drawing(FULL, 2.9, "sqnr") as drawing:
        axes = drawing.figure.add_subplot()
        axes.vlines(positions, min(0, shown.min()), shown, color=Ink.LINE.value, linewidth=1.0)
        for mask, ink, label in (
            (weighted, Ink.ACCENT, "with weights"),
            (~weighted, Ink.MUTED, "others"),
        ):
            axes.plot(
                positions[mask],
                shown[mask],
                "o",
                color=ink.value,
                markersize=4.0 if len(layers) < 80 else 2.5,
                label=label,
            )
        axes.set_ylim(min(0, shown.min()), max(45.0, shown.max() * 1.12))
        worst = layers[int(values.argmin())]
        axes.set_title(f"dB, lowest in {worst.node}: {bare_db(worst.sqnr_db)}")
        axes.legend(loc="upper right", frameon=False, ncols=2, handletextpad=0.1, fontsize=7.5)
        _name_layers(axes, [layer.node for layer in layers])
    return drawing.svg


def draw_accumulators(layers: Sequence[LayerReport], target_bits: int) -> str:
    """Bits that accumulators are proven to need and did need, against what the target has."""
    found = [(layer, layer.accumulator) for layer in layers if layer.accumulator is not None]
    positions = np.arange(len(found))
    proven = [accumulator.proven_bits for _, accumulator in found]
    seen = [accumulator.observed_bits for _, accumulator in found]
    with Drawing(FULL, 2.9, "accumulators") as drawing:
        axes = drawing.figure.add_subplot()
        axes.vlines(positions, seen, proven, color=Ink.SOFT.value, linewidth=4.0)
        axes.plot(positions, proven, "_", color=Ink.ACCENT.value, markersize=9, label="proven")
        axes.plot(positions, seen, "o", color=Ink.MUTED.value, markersize=3.5, label="seen")
        axes.axhline(target_bits, color=Ink.BAD.value, linewidth=1.0)
        axes.text(
            0.0,
            target_bits,
            f"the target has {target_bits}",
            transform=axes.get_yaxis_transform(),
            va="bottom",
            color=Ink.BAD.value,
        )
        axes.set_ylim(0, 1.13 * max([target_bits, *proven]))
        axes.set_title("bits")
        axes.legend(loc="lower right", frameon=False, ncols=2, handletextpad=0.1, fontsize=7.5)
        _name_layers(axes, [layer.node for layer, _ in found])
    return drawing.svg


def draw_weights(layers: Sequence[LayerReport]) -> str:
    """Draws for each layer how its integer weights fill their format."""
    rows = []
    for layer in layers:
        if layer.weight is not None:
            counts = np.array(layer.weight.histogram, dtype=np.float64)
            edges = np.linspace(0, 1, len(counts) + 1)
            rows.append((f"{layer.node}  {layer.weight.format}", edges, counts))
    return _ridges(rows, "weights", "heights are relative", margin=0.02)


def draw_activations(layers: Sequence[LayerReport]) -> str:
    """Draws for each layer where the float values lie in the range of the integer format."""
    margin = MARGIN_BINS / BINS
    edges = np.linspace(-margin, 1 + margin, BINS + 2 * MARGIN_BINS + 1)
    rows = [
        (f"{layer.node}  {layer.format}", edges, np.log1p(np.array(layer.histogram, float)))
        for layer in layers
        if layer.operator not in _MOVED
    ]
    return _ridges(rows, "activations", "heights are logarithmic", margin=margin)


_MOVED = {"reshape", "permute", "slice", "pad", "gather", "max_pool"}
"""Layers that repeat the values of another one."""


def _ridges(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]], name: str, note: str, margin: float
) -> str:
    """Histograms one below the other; each is scaled to its own maximum."""
    row_inches = min(ROW_INCHES, LONGEST_INCHES / max(1, len(rows)))
    with Drawing(HALF, 0.75 + row_inches * len(rows), name) as drawing:
        axes = drawing.figure.add_subplot()
        plain_axes(axes)
        axes.axvspan(0, 1, color=Ink.SOFT.value, alpha=0.35, linewidth=0)
        for position, (_, edges, counts) in enumerate(rows):
            heights = 0.9 * counts / max(1e-12, counts.max())
            base = len(rows) - 1 - position
            low, high = np.searchsorted(edges, [-1e-9, 1 - 1e-9])
            for part, ink in (
                (slice(low, high), Ink.ACCENT),
                (slice(0, low), Ink.BAD),
                (slice(high, len(heights)), Ink.BAD),
            ):
                if heights[part].any():
                    axes.stairs(
                        base + heights[part],
                        edges[part.start : part.stop + 1],
                        baseline=base,
                        fill=True,
                        color=ink.value,
                        linewidth=0,
                    )
        every = max(1, round(0.15 / row_inches))
        named = range(0, len(rows), every)
        axes.set_yticks(
            [len(rows) - 1 - i + 0.25 for i in named], [gist(rows[i][0], 34) for i in named]
        )
        axes.set_xlim(-margin, 1 + margin)
        axes.set_ylim(-0.15, len(rows) + 0.1)
        axes.set_xticks([0, 1], ["lowest code", "highest code"])
        axes.set_title(note, color=Ink.MUTED.value, fontsize=7.5)
    return drawing.svg


def draw_multipliers(study: MultiplierStudy) -> str:
    """Draws what narrower multipliers change, and what that does to the output."""
    costs = [cost for cost in study.costs if cost.problem is None]
    bits = [cost.bits for cost in costs]
    chosen = next((cost.bits for cost in costs if cost.chosen), None)
    with Drawing(FULL, 2.7, "multipliers") as drawing:
        left, right = drawing.figure.subplots(1, 2)
        narrower = [cost for cost in costs if cost.bits < study.reference_bits]
        changed = [cost.activations_changed or 0.0 for cost in narrower]
        left.plot(
            [cost.bits for cost in narrower],
            changed,
            "o-",
            color=Ink.ACCENT.value,
            markersize=3.5,
            linewidth=1.4,
        )
        left.set_ylim(0, max([1.0, *changed]) * 1.15)
        left.set_title(f"activations that differ from {study.reference_bits}-bit multipliers', %")
        values = [cost.output_sqnr_db or 0.0 for cost in costs]
        right.plot(bits, values, "o-", color=Ink.ACCENT.value, markersize=3.5, linewidth=1.4)
        right.set_ylim(min(0, *values), max(values) * 1.18)
        right.set_title("SQNR of the first output against the float model, dB")
        for axes in (left, right):
            axes.set_xticks(bits, [str(n) for n in bits])
            axes.set_xlabel("bits of the multiplier")
            axes.set_xlim(bits[0] - 0.7, bits[-1] + 0.7)
            if chosen is not None:
                axes.axvline(chosen, color=Ink.MUTED.value, linewidth=0.8, linestyle=(0, (4, 3)))
        if chosen is not None:
            left.annotate(
                "chosen",
                (chosen, left.get_ylim()[1]),
                xytext=(4, -2),
                textcoords="offset points",
                va="top",
                color=Ink.MUTED.value,
            )
    return drawing.svg


def _name_layers(axes: "Axes", names: Sequence[str]) -> None:
    """Writes the layers' names along the horizontal axis; of many, every n-th."""
    every = -(-len(names) // LABELLED)
    shown = range(0, len(names), every)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_xticks(list(shown), [gist(names[i], 28) for i in shown])
    axes.tick_params(axis="x", labelrotation=90, labelsize=6.5)
