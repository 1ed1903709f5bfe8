"""What a program costs on an accelerator, as sections of the page."""

from photomask.chip.cost.estimates import Costs, HardwareReport, StepEstimate
from photomask.chip.cost.roofline import hardware_figures
from photomask.chip.verification.words import count
from photomask.report import Cell, Column, Figure, Row, Section, Tone

_COLUMNS = (
    Column("step", number=False),
    Column("operator", number=False, in_terminal=False),
    Column("MACs"),
    Column("tile", number=False, in_terminal=False),
    Column("cycles"),
    Column("stall"),
    Column("utilization"),
    Column("weights", in_terminal=False),
    Column("activations", in_terminal=False),
    Column("results", in_terminal=False),
    Column("buffers", in_terminal=False),
    Column("energy"),
)
_CAPTIONS = {
    "roofline": (
        "What each layer computes for a byte of external memory, and how fast. The red line is "
        "what array and memory allow."
    ),
    "utilization": "Where the time of the array's cells goes, layer by layer.",
}


def hardware_sections(report: HardwareReport) -> list[Section]:
    """Returns the pictures, and the table of all steps.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figures = [Figure("", _CAPTIONS[name], draw) for name, draw in hardware_figures(report).items()]
    shown = [step for step in report.steps if step.costs.cycles.total]
    most_cycles = max((step.costs.cycles.total for step in shown), default=1)
    most_energy = max((step.costs.energy.total_pj for step in shown), default=0.0) or 1.0
    rows = [_row(step, most_cycles, most_energy) for step in shown]
    title = f"Estimate for accelerator “{report.accelerator.name}”"
    pictures = [Section(title, _text(report), figures=[figure]) for figure in figures[:1]]
    pictures += [Section("Utilization", figures=[figure]) for figure in figures[1:]]
    rest = Section("Cost of each step" if figures else title, "", _COLUMNS, [*rows, _total(report)])
    return [*pictures, rest]


def _text(report: HardwareReport) -> str:
    machine, totals = report.accelerator, report.totals
    kept = "" if machine.sparse is None else f" for {machine.sparse}"
    return (
        f"{machine.rows}×{machine.columns} cells{kept}, {machine.dataflow.replace('_', ' ')}, "
        f"{machine.memory_bytes_per_cycle:g} bytes a cycle from external memory. One sample takes "
        f"{count(totals.cycles.total)} cycles, {report.milliseconds:.3g} ms at "
        f"{machine.clock_mhz:g} MHz, and {_energy(totals)}; {100 * totals.utilization:.1f} % of "
        "the cells' time is multiplying. A model, not a measurement."
    )


def _row(step: StepEstimate, most_cycles: int, most_energy: float) -> Row:
    costs = step.costs
    stall = costs.cycles.stall / costs.cycles.total
    hint = ", ".join(step.fused) and f"with {', '.join(step.fused)}"
    return (
        Cell(step.step.removesuffix(".accumulator"), hint=hint),
        Cell(step.operator, Tone.QUIET),
        count(costs.multiply_accumulates) if costs.multiply_accumulates else "",
        Cell(_tile(step), Tone.QUIET),
        Cell(count(costs.cycles.total), bar=costs.cycles.total / most_cycles),
        Cell(f"{100 * stall:.0f} %", Tone.QUIET),
        Cell(f"{100 * costs.utilization:.1f} %", bar=costs.utilization)
        if costs.multiply_accumulates
        else "",
        *_bytes(costs),
        Cell(_energy(costs), bar=costs.energy.total_pj / most_energy),
    )


def _total(report: HardwareReport) -> Row:
    costs = report.totals
    stall = costs.cycles.stall / max(1, costs.cycles.total)
    return (
        "total",
        "",
        count(costs.multiply_accumulates),
        "",
        count(costs.cycles.total),
        f"{100 * stall:.0f} %",
        f"{100 * costs.utilization:.1f} %",
        *_bytes(costs),
        _energy(costs),
    )


def _bytes(costs: Costs) -> tuple[str, ...]:
    external = costs.external
    sizes = (external.weights, external.activations, external.results, costs.buffers.total)
    return tuple(f"{count(size)}B" if size >= 1000 else f"{size} B" for size in sizes)


def _tile(step: StepEstimate) -> str:
    """Returns a tile as output channels × input channels × rows × columns."""
    if step.tiling is None:
        return ""
    tile = step.tiling.tile
    return f"{tile.channels_out}×{tile.channels_in}×{tile.rows}×{tile.columns}"


def _energy(costs: Costs) -> str:
    picojoules = costs.energy.total_pj
    for unit, factor in (("mJ", 1e9), ("µJ", 1e6)):
        if picojoules >= factor:
            return f"{picojoules / factor:.3g} {unit}"
    return f"{picojoules / 1e3:.3g} nJ"
