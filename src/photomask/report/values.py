"""What the cells of a table are worth as numbers: for sorting, and for CSV."""

import math
import re
from collections.abc import Iterable

from photomask.report.anchors import text_of
from photomask.report.page import Cell, Column

_NUMBER = re.compile(r"([<>]?)\s*([+\-−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(.*)", re.DOTALL)
_PREFIXES = {"p": 1e-12, "n": 1e-9, "µ": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_UNITS = ("B", "J", "s", "Hz", "")
_FACTORS = {
    prefix + unit: (factor, unit)
    for prefix, factor in {**_PREFIXES, **_BINARY}.items()
    for unit in _UNITS
    if unit or prefix in "kMGT"
}
"""Units with a prefix: by what the number is multiplied, and the unit that is left."""


def number_of(cell: Cell | str) -> float | None:
    """Returns the number by which a cell is sorted; None where it has none, and is sorted last.

    Units with a prefix count: `1.08 MB` is 1.08e6.
    """
    if isinstance(cell, Cell) and cell.sort is not None:
        return cell.sort
    found = _NUMBER.fullmatch(text_of(cell))
    if found is None:
        return None
    factor, _ = _FACTORS.get(found[3], (1.0, ""))
    return float(found[2].replace(",", "").replace("−", "-")) * factor


def csv_value(cell: Cell | str, column: Column) -> str:
    """Returns what stands for a cell in a CSV file: its number where it is one, else its text."""
    number = number_of(cell) if column.number else None
    is_exact = isinstance(cell, Cell) and cell.sort is not None
    is_bound = text_of(cell).startswith(("<", ">")) and not is_exact
    if number is None or not math.isfinite(number) or is_bound:
        return text_of(cell)
    return number_text(number)


def csv_title(column: Column, cells: Iterable[Cell | str]) -> str:
    """Returns the head of a column in a CSV file: its title, and the unit of all its numbers."""
    units = set()
    for cell in cells if column.number else ():
        found = _NUMBER.fullmatch(text_of(cell))
        if found is not None:
            _, unit = _FACTORS.get(found[3], (1.0, found[3]))
            units.add(unit)
    unit = units.pop() if len(units) == 1 else ""
    return f"{column.title} [{unit}]" if unit else column.title


def number_text(number: float) -> str:
    """Returns a number as JavaScript reads it, with as many digits as it needs."""
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    short = f"{number:.12g}"
    return short if float(short) == number or not number.is_integer() else str(int(number))
