"""Layers in detail: float beside integer, single channels, and what each costs the accuracy."""

from collections.abc import Sequence

import numpy as np

from photomask.chip.verification.documents import ChannelReport, LayerReport, SampleReport
from photomask.chip.verification.layer_sensitivity import (
    LayerSensitivities,
    LayerSensitivity,
    OutputQuality,
)
from photomask.chip.verification.words import (
    bare_db,
    db,
    percent,
    small_percent,
    sqnr_bar,
    sqnr_tone,
)
from photomask.report import Cell, Column, Row, Section, Tone, row_anchor

LAYERS_TITLE = "Layers"
_VALUE_COLUMNS = (
    Column("layer", number=False),
    Column("lowest, float"),
    Column("lowest, integer"),
    Column("highest, float"),
    Column("highest, integer"),
    Column("mean, float"),
    Column("mean, integer"),
    Column("deviation, float", meaning="Standard deviation of the float model's values."),
    Column("deviation, integer", meaning="Standard deviation of what the integers stand for."),
    Column("SQNR dB", meaning="Power of the float values over power of the difference."),
)


def value_section(layers: Sequence[LayerReport], samples: int) -> Section:
    """Returns the statistics of float values and integers side by side; no rows without any."""
    rows: list[Row] = []
    for layer in layers:
        exact, found = layer.float_values, layer.integer_values
        if exact is None or found is None:
            continue
        pairs = [
            (exact.low, found.low),
            (exact.high, found.high),
            (exact.mean, found.mean),
            (exact.deviation, found.deviation),
        ]
        cells = [Cell(f"{value:.4g}", sort=value) for pair in pairs for value in pair]
        rows.append((_layer(layer.node), *cells, _sqnr(layer.sqnr_db)))
    text = f"Real values of every layer in the float model and in the program, {samples} samples."
    return Section("Float beside integer", text, _VALUE_COLUMNS, rows, in_terminal=False)


_CHANNEL_COLUMNS = (
    Column("layer", number=False),
    Column("channels"),
    Column("scale, smallest", meaning="Real value of one unit of the weight, over all channels."),
    Column("scale, largest"),
    Column("weights used", meaning="Share of the format's range that the median channel uses."),
    Column("SQNR, median", meaning="Of the channels' outputs, in dB."),
    Column("SQNR, worst", meaning="Of the worst channel, in dB."),
    Column("worst channel", meaning="The number of that channel, from 0."),
    Column("saturated", meaning="Of the channel that the format cuts off most often."),
    Column("in channel", meaning="The number of that channel, from 0."),
    Column("constant", meaning="Channels whose integer was the same at every place: dead ones."),
)


def channel_section(layers: Sequence[LayerReport], samples: int) -> Section:
    """Returns a row for each layer with weights; no rows where there is none."""
    rows = [_channel_row(layer, layer.channels) for layer in layers if layer.channels is not None]
    text = f"The output channels of every layer with weights, {samples} samples."
    return Section("Channels", text, _CHANNEL_COLUMNS, rows, in_terminal=False)


def _channel_row(layer: LayerReport, channels: ChannelReport) -> Row:
    noise, cut = np.array(channels.sqnr_db), np.array(channels.saturated)
    ends = np.maximum(np.abs(channels.weight_low), np.abs(channels.weight_high))
    weight = layer.weight
    used = float(np.median(ends)) / max(1, weight.format.high) if weight is not None else 0.0
    worst, most = int(noise.argmin()), int(cut.argmax())
    constant = len(channels.constant)
    return (
        _layer(layer.node),
        str(len(noise)),
        f"{min(channels.weight_scale):.3g}",
        f"{max(channels.weight_scale):.3g}",
        f"{100 * min(1.0, used):.0f} %",
        _sqnr(float(np.median(noise))),
        _sqnr(float(noise[worst])),
        str(worst),
        Cell(small_percent(float(cut[most])), sort=float(cut[most])),
        str(most) if cut[most] else "",
        Cell(
            str(constant),
            Tone.WARN if constant else Tone.QUIET,
            hint=f"channels {', '.join(map(str, channels.constant))}" if constant else "",
        ),
    )


_SENSITIVITY_COLUMNS = (
    Column("layer", number=False),
    Column("operator", number=False, in_terminal=False),
    Column("alone: SQNR dB", meaning="Of the outputs where this layer alone is quantized, in dB."),
    Column(
        "alone: same class",
        meaning="Samples in the float model's class, this layer quantized alone.",
    ),
    Column("alone: top-1", meaning="Samples in the right class, this layer quantized alone."),
    Column("others: SQNR dB", meaning="Of the outputs where all layers but this are quantized."),
    Column("gain", meaning="What leaving this layer in float adds to the SQNR of the outputs."),
    Column("others: same class", meaning="The same share, all layers but this one quantized."),
    Column("others: top-1", meaning="The same share, all layers but this one quantized."),
)


def sensitivity_section(found: LayerSensitivities) -> Section:
    """Returns a row for each layer, the one first that costs most when it is quantized alone."""
    whole = found.quantized
    text = (
        "Each layer quantized alone, and each left alone in float, by fake quantization on "
        f"{found.samples:,} samples. With all layers quantized the outputs have {db(whole.sqnr_db)}"
    )
    if whole.agreement is not None:
        text += f", {percent(whole.agreement)} in the same class"
    if whole.top1 is not None:
        text += f", top-1 {percent(whole.top1)} instead of {percent(found.float_top1)}"
    rows = [_sensitivity_row(layer, whole) for layer in found.layers]
    columns = _SENSITIVITY_COLUMNS
    return Section("Which layer costs the accuracy", f"{text}.", columns, rows, in_terminal=False)


def _sensitivity_row(layer: LayerSensitivity, whole: OutputQuality) -> Row:
    gain = layer.others.sqnr_db - whole.sqnr_db
    return (
        _layer(layer.layer, hint=layer.source),
        Cell(layer.operator, Tone.QUIET),
        _sqnr(layer.alone.sqnr_db),
        percent(layer.alone.agreement),
        percent(layer.alone.top1),
        _sqnr(layer.others.sqnr_db),
        Cell(f"{gain:+.1f}", Tone.GOOD if gain > 1 else Tone.QUIET, sort=gain),
        percent(layer.others.agreement),
        percent(layer.others.top1),
    )


_SAMPLE_COLUMNS = (
    Column("sample", meaning="Its place in the data, from 0."),
    Column("right class"),
    Column("float class"),
    Column("integer class"),
    Column("SQNR", meaning="Of this sample's output alone."),
)


def sample_section(samples: Sequence[SampleReport], output: str) -> Section:
    """Returns a row for each of the samples that differ most; no rows without any."""
    rows = [
        (
            str(sample.index),
            _class(sample.label),
            _class(sample.float_class),
            Cell(_class(sample.integer_class), Tone.PLAIN if sample.same_class else Tone.WARN),
            Cell(db(sample.sqnr_db), sqnr_tone(sample.sqnr_db), sort=sample.sqnr_db),
        )
        for sample in samples
    ]
    text = (
        f"The samples on which model and program differ most in output “{output}”: those in "
        "different classes first, then those of the lowest SQNR."
    )
    return Section("Worst samples", text, _SAMPLE_COLUMNS, rows, in_terminal=False)


def _class(number: int | None) -> str:
    return "–" if number is None else str(number)


def _layer(node: str, hint: str = "") -> Cell:
    return Cell(node, hint=hint, link=row_anchor(LAYERS_TITLE, node))


def _sqnr(value: float) -> Cell:
    return Cell(bare_db(value), sqnr_tone(value), bar=sqnr_bar(value), sort=value)
