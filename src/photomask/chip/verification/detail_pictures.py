"""Small pictures: the noise of single channels, and the samples that differ most."""

from collections.abc import Sequence
from html import escape

import numpy as np

from photomask.chip.verification.documents import LayerReport, SampleReport
from photomask.chip.verification.words import GOOD_SQNR_DB, bare_db, db, gist
from photomask.report import row_anchor

STRIP = 22
"""Height of a strip in pixels."""
STRIP_WIDTH = 560
STRIP_LEFT = 250
"""The room for names on the left of the strips."""
MOST_BARS = 140
"""Of a strip; with more channels, each bar is the worst of several."""
FULL_DB = 60.0
"""Signal over noise that fills the height of a strip."""
PICTURE = 84
"""Pixels along an axis of a sample's picture."""


def draw_channels(title: str, layers: Sequence[LayerReport]) -> str:
    """Returns a strip for each layer with weights: a bar for the signal over noise of each channel.

    Args:
        title: of the section whose table has a row for each layer.
        layers: all of them; those without weights are left out.
    """
    found = [(layer, layer.channels) for layer in layers if layer.channels is not None]
    width, height = STRIP_LEFT + STRIP_WIDTH + 10, len(found) * STRIP + 6
    parts = [
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-size="11" '
        'font-family="var(--sans)" fill="var(--text)">'
    ]
    for number, (layer, channels) in enumerate(found):
        base = (number + 1) * STRIP
        values = np.array(channels.sqnr_db)
        worst = int(values.argmin())
        hint = (
            f"{layer.node}: {len(values)} channels, median {db(float(np.median(values)))}, lowest "
            f"{db(float(values[worst]))} in channel {worst}"
        )
        link = escape(row_anchor(title, layer.node))
        parts.append(
            f'<a href="#{link}"><title>{escape(hint)}</title>'
            f'<rect x="0" y="{base - STRIP + 3}" width="{width}" height="{STRIP}" '
            'fill="transparent"/>'
            f'<text x="{STRIP_LEFT - 10}" y="{base - 3}" text-anchor="end">'
            f"{escape(gist(layer.node, 40))}</text>{_strip(values, base)}</a>"
        )
    return "".join([*parts, "</svg>"])


def _strip(values: np.ndarray, base: int) -> str:
    """Returns the bars of one layer, poor ones in another colour, above their base line."""
    parts = np.array_split(values, min(MOST_BARS, len(values)))
    lowest = np.array([part.min() for part in parts])
    heights = np.clip(lowest, 1.0, FULL_DB) / FULL_DB * (STRIP - 5)
    step = STRIP_WIDTH / len(lowest)
    paths = {"accent": "", "bad": ""}
    for place, bar in enumerate(heights):
        ink = "accent" if lowest[place] >= GOOD_SQNR_DB else "bad"
        x = STRIP_LEFT + place * step
        paths[ink] += f"M{x:.4g} {base}v-{bar:.3g}h{step * 0.8:.3g}v{bar:.3g}"
    drawn = [f'<path d="{path}" fill="var(--{ink})"/>' for ink, path in paths.items() if path]
    line = f'<path d="M{STRIP_LEFT} {base}h{STRIP_WIDTH}" stroke="var(--line)"/>'
    return "".join([line, *drawn])


def draw_samples(samples: Sequence[SampleReport]) -> str:
    """Returns the pictures of samples in a row, each with its classes below.

    Args:
        samples: those with a picture.
    """
    room = PICTURE + 26
    width, height = len(samples) * room, PICTURE + 46
    parts = [
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-size="11" '
        'font-family="var(--sans)" fill="var(--text)">'
    ]
    for place, sample in enumerate(samples):
        x = place * room
        ink = "text" if sample.same_class else "warn"
        classes = f"{sample.float_class} → {sample.integer_class}"
        parts.append(
            f'<image x="{x}" y="0" width="{PICTURE}" height="{PICTURE}" '
            'preserveAspectRatio="xMidYMid" style="image-rendering:pixelated" '
            f'href="data:image/png;base64,{sample.picture}"/>'
            f'<text x="{x}" y="{PICTURE + 15}">sample {sample.index}</text>'
        )
        if sample.float_class is not None:
            parts.append(f'<text x="{x}" y="{PICTURE + 29}" fill="var(--{ink})">{classes}</text>')
        parts.append(
            f'<text x="{x}" y="{PICTURE + 43}" fill="var(--muted)">{bare_db(sample.sqnr_db)} dB'
            "</text>"
        )
    return "".join([*parts, "</svg>"])
