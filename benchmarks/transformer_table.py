"""The table of `transformer_accuracy.py`: float, fake-quantized, integer, C and RTL, per model.

A simulation of one sample has no accuracy; the RTL's column says how many of its integers differ.
"""

from collections.abc import Sequence

WHAT = "transformer_accuracy"
SIMULATED = "rtl_simulation"
"""The rows that say whether the reference design computes a network's integers."""
FLOAT = "float"
PATHS = ("fake-quantized", "integer", "C")
"""What computes, after the name of the recipe; `integer` is the torch engine."""
DIGITS = {"linear probe": 1, "cosine": 4, "correlation": 4}
"""Of measures, by what their names begin with; 2 of others."""
NOISE = "sqnr"
HEAD = (
    "network, recipe",
    "measure",
    "float",
    "fake-quantized",
    "integer",
    "C",
    "RTL, integers of one sample",
    "SQNR",
    "integers of all engines",
    "that differ",
)

Row = dict[str, str]


def build(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Returns one line for each network, recipe and measure.

    Args:
        rows: of `transformer_accuracy` and, for the column of the RTL, of `rtl_simulation`.
    """
    own = [row for row in rows if row["what"] == WHAT]
    lines: list[tuple[str, ...]] = []
    for network, recipe in dict.fromkeys(
        (row["network"], _recipe(row)) for row in own if row["implementation"] != FLOAT
    ):
        found = [row for row in own if row["network"] == network]
        simulated = _simulated(rows, network, recipe)
        cells = {
            path: {r["metric"]: r for r in found if r["implementation"] == f"{recipe}, {path}"}
            for path in PATHS
        }
        original = {r["metric"]: r for r in found if r["implementation"] == FLOAT}
        counts = [
            sum(float(r["value"]) for r in found if r["metric"] == metric and _recipe(r) == recipe)
            for metric in ("integers", "mismatches")
        ]
        last = (
            _shown(cells["integer"].get(NOISE), 1),
            *(f"{int(count):,}" for count in counts),
        )
        for measure in [name for name in cells["integer"] if not name.startswith(NOISE)]:
            digits = next((n for start, n in DIGITS.items() if measure.startswith(start)), 2)
            values = [_shown(original.get(measure), digits)]
            samples = cells["integer"][measure]["note"]
            values += [_of(cells[path].get(measure), digits, samples) for path in PATHS]
            name = f"{network}, {recipe.removeprefix('photomask ')}"
            what = f"{measure}; {samples}" if samples else measure
            lines.append((name, what, *values, simulated, *last))
    return [HEAD, *lines] if lines else []


def _recipe(row: Row) -> str:
    """Returns `photomask` and the recipe, without what ran the program."""
    return row["implementation"].partition(",")[0]


def _simulated(rows: Sequence[Row], network: str, recipe: str) -> str:
    """Says how many integers of a whole inference differed in simulation, of how many."""
    counts = {"mismatches": "", "integers compared": ""}
    for row in rows:
        named = row["network"] in (f"{network}, {recipe.removeprefix('photomask ')}", network)
        own = "," in row["network"] or recipe == "photomask w8a8"
        if row["what"] == SIMULATED and row["metric"] in counts and named and own:
            counts[row["metric"]] = f"{int(float(row['value'])):,}"
    return " of ".join(counts.values()) + " differ" if all(counts.values()) else "–"


def _of(row: Row | None, digits: int, samples: str) -> str:
    """Returns a number, and how many samples it is of where these are not those of the line."""
    shown = _shown(row, digits)
    return shown if row is None or row["note"] == samples else f"{shown} ({row['note']})"


def _shown(row: Row | None, digits: int) -> str:
    if row is None:
        return "–"
    return f"{float(row['value']):.{digits}f} {row['unit']}".strip()
