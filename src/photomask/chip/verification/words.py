"""How a report writes its numbers."""

from collections.abc import Sequence

from photomask.chip.forms.rtl.memory_map import Place
from photomask.chip.verification.step_documents import Numbers
from photomask.report import SQNR_LIMIT_DB, Tone

GOOD_SQNR_DB = 20.0
POOR_SQNR_DB = 10.0


def db(value: float) -> str:
    """Returns a ratio with its unit: `31.4 dB`."""
    return f"{bare_db(value)} dB" if abs(value) < SQNR_LIMIT_DB else bare_db(value)


def bare_db(value: float) -> str:
    """Returns a ratio in decibels without the unit."""
    if value >= SQNR_LIMIT_DB:
        return "exact"
    return "no signal" if value <= -SQNR_LIMIT_DB else f"{value:.1f}"


def sqnr_tone(value: float) -> Tone:
    """Returns the colour of a signal over noise in decibels."""
    if value < POOR_SQNR_DB:
        return Tone.BAD
    return Tone.WARN if value < GOOD_SQNR_DB else Tone.PLAIN


def sqnr_bar(value: float) -> float:
    """Returns the length of the bar below a signal over noise: 60 dB are the whole."""
    return max(0.0, min(1.0, value / 60))


def percent(value: float | None) -> str:
    """Returns a percentage with two digits behind the point; a dash where there is none."""
    return "–" if value is None else f"{value:.2f} %"


def small_percent(value: float) -> str:
    """Returns a percentage that is mostly 0."""
    if 0 < value < 0.01:
        return "<0.01 %"
    return f"{value:.2f} %" if value else "0"


def count(value: float) -> str:
    """Returns a count with three digits: `31.4 M`."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Returns bytes with three digits: `1.08 MB`."""
    return f"{count(value)}B" if value >= 1e3 else f"{value:.0f} B"


def shape_text(shape: Sequence[int]) -> str:
    """Returns the shape of one sample, the batch left out: `16×28×28`."""
    return "×".join(map(str, shape[1:])) or "1"


def numbers_text(numbers: Numbers) -> str:
    """Returns one number, or the ends of several."""
    low, high = _number(numbers.low), _number(numbers.high)
    return low if numbers.low == numbers.high else f"{low} to {high}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def place_text(place: Place) -> str:
    """Returns the words of an edge in a memory of the reference design."""
    last = place.address + place.words - 1
    return f"{place.memory} 0x{place.address:x} to 0x{last:x}"


def gist(name: str, length: int) -> str:
    """Returns a name's end, which tells layers apart, where the whole is too long."""
    return name if len(name) <= length else "…" + name[-(length - 1) :]
