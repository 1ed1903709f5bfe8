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
from photomask.report import (
    SQNR_LIMIT_DB,
    Cell,
    Column,
    Figure,
    Row,
    Section,
    Tone,
)

GOOD_SQNR_DB = 20.0
POOR_SQNR_DB = 10.0
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
    facts.append(("output SQNR", _db(first.sqnr_db)))
    facts.append(("engine mismatches", f"{engine.mismatches:,} of {engine.integers:,} integers"))
    facts.append(("parameters", _size(totals.float_bytes) + " → " + _size(totals.weight_bytes)))
    facts.append(("multiply-accumulates", f"{_count(totals.multiply_accumulates)} a sample"))
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
                _percent(output.float_top1),
                _percent(output.integer_top1),
                change,
                _percent(output.agreement),
                _db(output.sqnr_db),
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
        Cell(_bare_db(layer.sqnr_db), _sqnr_tone(layer.sqnr_db), bar=_sqnr_bar(layer.sqnr_db)),
        Cell(f"{100 * used:.0f} %", bar=used, hint=f"codes {low} to {high}"),
        _saturation(layer),
        Cell("", Tone.QUIET)
        if weight is None
        else Cell(f"{weight.format}" + (f", {strays} stray" if strays else ""),
                  Tone.BAD if strays else Tone.PLAIN),
        "" if accumulator is None else str(accumulator.proven_bits),
        "" if accumulator is None else Cell(str(accumulator.observed_bits), Tone.QUIET),
        _multiplier_error(layer),
        Cell(_count(layer.multiply_accumulates) if layer.multiply_accumulates else "",
             bar=layer.multiply_accumulates / most_operations or None),
        Cell(_size(layer.bytes) if layer.bytes else "", bar=layer.bytes / most_bytes or None),
    )  # fmt: skip


def _saturation(layer: LayerReport) -> Cell:
    count = layer.saturated_low + layer.saturated_high
    if not count:
        return Cell("0", Tone.QUIET)
    tone = Tone.WARN if layer.saturation > NOTABLE_SATURATION else Tone.PLAIN
    hint = f"{layer.saturated_low:,} below, {layer.saturated_high:,} above, of {layer.elements:,}"
    return Cell(_small_percent(layer.saturation), tone, hint=hint)


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
    """What the next narrower multiplier costs, in a sentence."""
    possible = [cost for cost in study.costs if cost.problem is None]
    chosen = next((cost for cost in possible if cost.chosen), None)
    narrower = [cost for cost in possible if chosen is not None and cost.bits < chosen.bits]
    if chosen is None or not narrower:
        return ""
    cost = narrower[-1]
    text = (
        f"{cost.bits} bits change {_small_percent(cost.activations_changed or 0.0)} of the "
        f"activations, by at most {cost.largest_difference} units of the last bit; the output's "
        f"SQNR is {_db(cost.output_sqnr_db or 0.0)} instead of {_db(chosen.output_sqnr_db or 0.0)}"
    )
    if cost.agreement is None or chosen.agreement is None:
        return f"{text}."
    same, before = _percent(cost.agreement), _percent(chosen.agreement)
    return f"{text}, and {same} of the samples keep the float model's class instead of {before}."


def _multiplier_row(cost: MultiplierCost) -> Row:
    bits = Cell(f"{cost.bits}" + (" (chosen)" if cost.chosen else ""))
    if cost.problem is not None:
        return (bits, Cell("impossible", Tone.WARN, hint=cost.problem), *[""] * 6)
    changed, all_changed = cost.outputs_changed or 0.0, cost.activations_changed or 0.0
    return (
        bits,
        f"{cost.relative_error:.1e}",
        Cell(_small_percent(changed), bar=changed / 100),
        Cell(_small_percent(all_changed), bar=all_changed / 100),
        f"{cost.largest_difference} LSB",
        "–" if cost.output_sqnr_db is None else _db(cost.output_sqnr_db),
        _percent(cost.agreement),
        _percent(cost.top1),
    )


def with_pictures(sections: list[Section], pictures: dict[str, Callable[[], str]]) -> list[Section]:
    """Puts each picture where its numbers are discussed."""
    found = []
    for section in sections:
        if section.title == "Layers":
            found += [_picture_section(title, pictures) for title in _PICTURES]
        names = ["multipliers"] if section.columns is _MULTIPLIER_COLUMNS else []
        figures = [Figure("", _CAPTIONS[name], pictures[name]) for name in names]
        found.append(replace(section, figures=figures))
    return [section for section in found if section.figures or section.rows]


def _picture_section(title: str, pictures: dict[str, Callable[[], str]]) -> Section:
    headed = _PICTURES[title]
    return Section(
        title,
        figures=[
            Figure(heading, _CAPTIONS[name], pictures[name])
            for name, heading in headed.items()
            if name in pictures
        ],
    )


_PICTURES = {
    "Signal and noise": {"sqnr": ""},
    "Values and their ranges": {"weights": "Weights", "activations": "Activations"},
    "Accumulators": {"accumulators": ""},
}
"""Sections before the table of layers: names of their pictures, with headings."""
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
}


def _db(value: float) -> str:
    return f"{_bare_db(value)} dB" if abs(value) < SQNR_LIMIT_DB else _bare_db(value)


def _bare_db(value: float) -> str:
    if value >= SQNR_LIMIT_DB:
        return "exact"
    return "no signal" if value <= -SQNR_LIMIT_DB else f"{value:.1f}"


def _sqnr_tone(value: float) -> Tone:
    if value < POOR_SQNR_DB:
        return Tone.BAD
    return Tone.WARN if value < GOOD_SQNR_DB else Tone.PLAIN


def _sqnr_bar(value: float) -> float:
    return max(0.0, min(1.0, value / 60))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} %"


def _small_percent(value: float) -> str:
    if 0 < value < 0.01:
        return "<0.01 %"
    return f"{value:.2f} %" if value else "0"


def _count(value: float) -> str:
    """A count with three digits: 31.4 M."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f}"


def _size(value: float) -> str:
    """Bytes with three digits: 1.08 MB."""
    return f"{_count(value)}B" if value >= 1e3 else f"{value:.0f} B"
