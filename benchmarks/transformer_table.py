"""The table of `transformer_accuracy.py`: float, fake-quantized, integer, C and RTL, per model."""

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
    "RTL",
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
        simulated = _is_simulated(rows, network, recipe)
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
            values += [_shown(cells[path].get(measure), digits) for path in PATHS]
            rtl = values[2] if simulated else "–"
            name = f"{network}, {recipe.removeprefix('photomask ')}"
            lines.append((name, measure, *values, rtl, *last))
    return [HEAD, *lines] if lines else []


def _recipe(row: Row) -> str:
    """Returns `photomask` and the recipe, without what ran the program."""
    return row["implementation"].partition(",")[0]


def _is_simulated(rows: Sequence[Row], network: str, recipe: str) -> bool:
    """Tells whether a whole inference of a program was simulated, every integer being right."""
    found = [
        float(row["value"])
        for row in rows
        if row["what"] == SIMULATED
        and row["metric"] == "mismatches"
        and row["network"] in (f"{network}, {recipe.removeprefix('photomask ')}", network)
        and ("," in row["network"] or recipe == "photomask w8a8")
    ]
    return bool(found) and not any(found)


def _shown(row: Row | None, digits: int) -> str:
    if row is None:
        return "–"
    return f"{float(row['value']):.{digits}f} {row['unit']}".strip()
