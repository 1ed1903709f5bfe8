"""What verification found, in words and tables: the facts and sections of a report's page."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from photomask.chip.verification.documents import (
    EngineReport,
    LayerReport,
    MultiplierCost,
    MultiplierStudy,
    OutputReport,
    TotalsReport,
)
from photomask.chip.verification.words import (
    bare_db,
    count,
    db,
    percent,
    size,
    small_percent,
    sqnr_bar,
    sqnr_tone,
)
from photomask.report import Cell, Column, Figure, Row, Section, Tone, section_anchor

NOTABLE_SATURATION = 0.1
"""Percent."""


def facts_of(
    first: OutputReport, totals: TotalsReport, engine: EngineReport
) -> list[tuple[str, str]]:
    """Returns the few numbers that matter most: what each is, and its value."""
    facts: list[tuple[str, str]] = []
    if first.float_top1 is not None:
        facts.append(("top-1, float", f"{first.float_top1:.2f} %"))
        facts.append(("top-1, integer", f"{first.integer_top1:.2f} %"))
    if first.agreement is not None:
        facts.append(("same class", f"{first.agreement:.2f} %"))
    facts.append(("output SQNR", db(first.sqnr_db)))
    facts.append(("engine mismatches", f"{engine.mismatches:,} of {engine.integers:,} integers"))
    facts.append(("parameters", size(totals.float_bytes) + " → " + size(totals.weight_bytes)))
    facts.append(("multiply-accumulates", f"{count(totals.multiply_accumulates)} a sample"))
    return facts


_OUTPUT_COLUMNS = (
    Column("output", number=False),
    Column("top-1, float"),
    Column("top-1, integer"),
    Column("difference"),
    Column("same class"),
    Column("SQNR"),
)


def output_section(outputs: Sequence[OutputReport], samples: int) -> Section:
    """Returns a row for each output."""
    text = f"Model and program on all {samples:,} samples."
    return Section("Outputs", text, _OUTPUT_COLUMNS, _output_rows(outputs))


def _output_rows(outputs: Sequence[OutputReport]) -> list[Row]:
    rows: list[Row] = []
    for output in outputs:
        change = "–"
        if output.float_top1 is not None and output.integer_top1 is not None:
            change = f"{output.integer_top1 - output.float_top1:+.2f}"
        rows.append(
            (
                output.name,
                percent(output.float_top1),
                percent(output.integer_top1),
                change,
                percent(output.agreement),
                db(output.sqnr_db),
            )
        )
    return rows


_LAYER_COLUMNS = (
    Column("layer", number=False),
    Column("operator", number=False, in_terminal=False),
    Column("shape", in_terminal=False),
    Column("output", number=False),
    Column("SQNR dB"),
    Column("range used", in_terminal=False),
    Column("saturated"),
    Column("weights", number=False),
    Column("acc. bits"),
    Column("seen"),
    Column("multiplier error", in_terminal=False),
    Column("MACs"),
    Column("bytes"),
)


def layer_section(layers: Sequence[LayerReport], samples: int, accumulator_bits: int) -> Section:
    """Returns a row for each layer."""
    text = (
        f"Every node of the float model beside its integers, {samples} samples; "
        f"accumulators have {accumulator_bits} bits."
    )
    most_operations = max((layer.multiply_accumulates for layer in layers), default=0) or 1
    most_bytes = max((layer.bytes for layer in layers), default=0) or 1
    rows = [_layer_row(layer, most_operations, most_bytes) for layer in layers]
    return Section("Layers", text, _LAYER_COLUMNS, rows)


def _layer_row(layer: LayerReport, most_operations: int, most_bytes: float) -> Row:
    weight, accumulator = layer.weight, layer.accumulator
    low, high = layer.codes
    used = (high - low) / (layer.format.high - layer.format.low)
    strays = (weight.stray_weights or 0) + (weight.stray_biases or 0) if weight else 0
    return (
        Cell(layer.node, hint=layer.source),
        Cell(layer.operator, Tone.QUIET),
        Cell("×".join(map(str, layer.shape)), Tone.QUIET),
        str(layer.format),
        Cell(bare_db(layer.sqnr_db), sqnr_tone(layer.sqnr_db), bar=sqnr_bar(layer.sqnr_db)),
        Cell(f"{100 * used:.0f} %", bar=used, hint=f"codes {low} to {high}"),
        _saturation(layer),
        Cell("", Tone.QUIET)
        if weight is None
        else Cell(f"{weight.format}" + (f", {strays} stray" if strays else ""),
                  Tone.BAD if strays else Tone.PLAIN),
        "" if accumulator is None else str(accumulator.proven_bits),
        "" if accumulator is None else Cell(str(accumulator.observed_bits), Tone.QUIET),
        _multiplier_error(layer),
        Cell(count(layer.multiply_accumulates) if layer.multiply_accumulates else "",
             bar=layer.multiply_accumulates / most_operations or None),
        Cell(size(layer.bytes) if layer.bytes else "", bar=layer.bytes / most_bytes or None),
    )  # fmt: skip


def _saturation(layer: LayerReport) -> Cell:
    count = layer.saturated_low + layer.saturated_high
    if not count:
        return Cell("0", Tone.QUIET)
    tone = Tone.WARN if layer.saturation > NOTABLE_SATURATION else Tone.PLAIN
    hint = f"{layer.saturated_low:,} below, {layer.saturated_high:,} above, of {layer.elements:,}"
    return Cell(small_percent(layer.saturation), tone, hint=hint)


def _multiplier_error(layer: LayerReport) -> Cell:
    if layer.wrong_rescalings:
        return Cell(f"{layer.wrong_rescalings} wrong", Tone.BAD)
    if layer.multiplier_error is None:
        return Cell("")
    return Cell(f"{layer.multiplier_error:.0e}" if layer.multiplier_error else "0", Tone.QUIET)


_MULTIPLIER_COLUMNS = (
    Column("bits"),
    Column("largest error"),
    Column("outputs changed", in_terminal=False),
    Column("activations changed"),
    Column("by at most"),
    Column("output SQNR"),
    Column("same class"),
    Column("top-1"),
)


def multiplier_section(study: MultiplierStudy) -> Section:
    """Returns a row for each width of multipliers."""
    text = (
        f"The same program with rescaling multipliers of other widths, {study.samples} samples, "
        f"beside {study.reference_bits} bits. {_narrower_text(study)}"
    ).rstrip()
    rows = [_multiplier_row(cost) for cost in study.costs]
    return Section("What a multiplier of k bits costs", text, _MULTIPLIER_COLUMNS, rows)


def _narrower_text(study: MultiplierStudy) -> str:
    """Returns a sentence about what the next narrower multiplier costs."""
    possible = [cost for cost in study.costs if cost.problem is None]
    chosen = next((cost for cost in possible if cost.chosen), None)
    narrower = [cost for cost in possible if chosen is not None and cost.bits < chosen.bits]
    if chosen is None or not narrower:
        return ""
    cost = narrower[-1]
    text = (
        f"{cost.bits} bits change {small_percent(cost.activations_changed or 0.0)} of the "
        f"activations, by at most {cost.largest_difference} units of the last bit; the output's "
        f"SQNR is {db(cost.output_sqnr_db or 0.0)} instead of {db(chosen.output_sqnr_db or 0.0)}"
    )
    if cost.agreement is None or chosen.agreement is None:
        return f"{text}."
    same, before = percent(cost.agreement), percent(chosen.agreement)
    return f"{text}, and {same} of the samples keep the float model's class instead of {before}."


def _multiplier_row(cost: MultiplierCost) -> Row:
    bits = Cell(f"{cost.bits}" + (" (chosen)" if cost.chosen else ""))
    if cost.problem is not None:
        return (bits, Cell("impossible", Tone.WARN, hint=cost.problem), *[""] * 6)
    changed, all_changed = cost.outputs_changed or 0.0, cost.activations_changed or 0.0
    return (
        bits,
        f"{cost.relative_error:.1e}",
        Cell(small_percent(changed), bar=changed / 100),
        Cell(small_percent(all_changed), bar=all_changed / 100),
        f"{cost.largest_difference} LSB",
        "–" if cost.output_sqnr_db is None else db(cost.output_sqnr_db),
        percent(cost.agreement),
        percent(cost.top1),
    )


def with_pictures(sections: list[Section], pictures: dict[str, Callable[[], str]]) -> list[Section]:
    """Puts each picture where its numbers are discussed; leaves out what is empty.

    Args:
        sections: the tables.
        pictures: what draws each picture, by name.
    """
    found = []
    for section in sections:
        anchor = section_anchor(section.title)
        found += [_section(title, names, pictures) for title, names in _BEFORE.get(anchor, ())]
        names = [name for name in _INSIDE.get(anchor, ()) if name in pictures]
        figures = [Figure("", _CAPTIONS[name], pictures[name], name in _LONG) for name in names]
        found.append(replace(section, figures=figures) if figures else section)
    return [section for section in found if section.figures or section.rows or section.facts]


def _section(title: str, headed: dict[str, str], pictures: dict[str, Callable[[], str]]) -> Section:
    return Section(
        title,
        figures=[
            Figure(heading, _CAPTIONS[name], pictures[name], name in _LONG)
            for name, heading in headed.items()
            if name in pictures
        ],
    )


_BEFORE = {
    "layers": (
        ("Signal and noise", {"sqnr": ""}),
        ("Values and their ranges", {"weights": "Weights", "activations": "Activations"}),
        ("Accumulators", {"accumulators": ""}),
    ),
    "steps-of-the-program": (("The program as a graph", {"program": ""}),),
}
"""Sections of pictures before a table: their names, with headings."""
_INSIDE = {
    "worst-samples": ("samples",),
    "channels": ("channels",),
    "what-a-multiplier-of-k-bits-costs": ("multipliers",),
}
_LONG = {"program", "channels", "samples"}
"""Pictures that keep their size and scroll."""
_CAPTIONS = {
    "sqnr": "Signal over quantization noise, layer by layer in the order of computation.",
    "weights": "Integers in the range of their format.",
    "activations": (
        "Float values in the range of their format; what lies outside, in red, is cut off."
    ),
    "accumulators": (
        "Bits that the sums are proven to need at most, and bits that the samples did need. The "
        "line is the width of the target's accumulator."
    ),
    "multipliers": "What narrower multipliers change, and what that does to the output.",
    "program": (
        "One row for each step, in the order of computation; lines are edges. The colour of a node "
        "is the SQNR of its layer, a small node is done with the one before. Each row is a link "
        "to the step's numbers, and shows them when it is pointed at."
    ),
    "channels": (
        "A bar for each output channel: SQNR from 0 to 60 dB. Channels below 20 dB are red."
    ),
    "samples": "Class of the float model → class of the program, and the SQNR of the output.",
}
