"""Writes a page as one HTML file that needs nothing else."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from photomask.dependencies import OptionalPackage
from photomask.documents import write_file
from photomask.report.anchors import row_anchors, section_anchors
from photomask.report.page import Cell, Column, Page, Row, Section, Tone
from photomask.report.values import csv_title, csv_value, number_of, number_text

_FOLDER = Path(__file__).parent
TEMPLATE = _FOLDER / "page.html.jinja"
STYLES = _FOLDER / "page.css"
SCRIPT = _FOLDER / "page.js"


@dataclass(frozen=True)
class _Line:
    """A row with its anchor, which is empty for totals."""

    anchor: str
    cells: list[Cell]


def write_page(page: Page, path: Path) -> None:
    """Writes a page; the file appears whole or not at all.

    Its tables can be sorted, filtered and saved as CSV. The script for that is inside the file, and
    the page can be read without it. The page forbids itself to load anything.

    Args:
        page: verdict, facts, tables and figures.
        path: where to; an earlier file is replaced.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
        ExportError: the disk refused the file.
    """
    write_file(path, render_page(page).encode())


def render_page(page: Page) -> str:
    """Returns a page as HTML.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    with OptionalPackage("jinja2", "report", "the HTML report"):
        import jinja2
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    script = SCRIPT.read_text(encoding="utf-8")
    return template.render(
        page=page,
        sections=list(zip(section_anchors(page.sections), page.sections, strict=True)),
        styles=STYLES.read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        lines_of=_lines,
        totals_of=_totals,
        heads_of=_heads,
        attributes_of=_attributes,
    )


def _lines(anchor: str, section: Section) -> Iterator[_Line]:
    for name, row in zip(row_anchors(anchor, section.rows), section.rows, strict=True):
        yield _Line(name, _cells(row))


def _totals(section: Section) -> Iterator[_Line]:
    for row in section.totals:
        yield _Line("", _cells(row))


def _cells(row: Row) -> list[Cell]:
    return [Cell(value) if isinstance(value, str) else value for value in row]


def _heads(section: Section) -> Iterator[tuple[Column, str]]:
    """Yields each column, and its head in a CSV file where that is not its title."""
    for place, column in enumerate(section.columns):
        title = csv_title(column, [row[place] for row in section.table_rows])
        yield column, "" if title == column.title else title


def _attributes(cell: Cell, column: Column) -> dict[str, str]:
    """Returns the attributes of a cell; what the script can tell from the text is left out."""
    classes = [cell.tone.value] if cell.tone is not Tone.PLAIN else []
    classes += ["number"] if column.number else []
    classes += ["bar"] if cell.bar is not None else []
    found = {"class": " ".join(classes), "title": cell.hint}
    if column.number:
        number = number_of(cell)
        sorted_by = cell.text if number is None else number_text(number)
        written = csv_value(cell, column)
        found["data-sort"] = "" if sorted_by == cell.text else sorted_by
        found["data-csv"] = "" if written == sorted_by else written
    return {name: value for name, value in found.items() if value}
