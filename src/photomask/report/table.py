"""What `print` shows of an object and what a notebook shows: the same rows, as text and as HTML."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from html import escape

from photomask.documents import Document, aligned
from photomask.report.anchors import text_of
from photomask.report.page import Page
from photomask.report.terminal import render_text

_CELL = 'style="text-align:left;white-space:pre-wrap"'
_BOX = 'style="max-height:40em;overflow:auto;white-space:pre-wrap"'


@dataclass(frozen=True)
class Table:
    """A title, rows with a header, and lines below them.

    Attributes:
        title: what it is a table of; left out where empty.
        rows: the header first, all of one length; left out where there is nothing but a header.
        notes: lines below the rows.
    """

    title: str
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Returns the table with its columns padded to line up."""
        title = [self.title] if self.title else []
        rows = aligned(self.rows) if len(self.rows) > 1 else []
        return "\n".join([*title, *rows, *self.notes])

    def html(self) -> str:
        """Returns the table as an HTML element; every text in it is escaped."""
        title = [_line("strong", self.title)] if self.title else []
        rows = [_rows(self.rows)] if len(self.rows) > 1 else []
        return _box([*title, *rows, *(_line("span", note) for note in self.notes)])


class Shown:
    """What prints as a table, and shows itself as one in a notebook."""

    def shown(self) -> Table | Page:
        """Returns what a person sees."""
        raise NotImplementedError

    def __str__(self) -> str:
        found = self.shown()
        return found.text() if isinstance(found, Table) else render_text(found)

    def _repr_html_(self) -> str:
        found = self.shown()
        return found.html() if isinstance(found, Table) else _page(found)


def table_of_fields(title: str, document: Document) -> Table:
    """Returns a row for each field of a document, those of documents inside it included."""
    return Table(title, [("field", "value"), *_fields(document, "")])


def _fields(document: Document, prefix: str) -> Iterator[tuple[str, str]]:
    for name in type(document).model_fields:
        value = getattr(document, name)
        if name == "schema_version":
            continue
        if isinstance(value, Document):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _value(value)


def _value(value: object) -> str:
    """Returns a field's value as it stands in a document, without its quotes."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        if len(value) > 2 and value == tuple(range(value[0], value[0] + len(value))):
            return f"{value[0]} to {value[-1]}"
        return ", ".join(map(_value, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)


def _page(page: Page) -> str:
    """Returns verdict, facts and tables of a page, as a terminal shows them."""
    parts = [_line("strong", page.verdict), *(_line("span", reason) for reason in page.reasons)]
    parts.append(_rows([("", ""), *page.facts]))
    for section in page.brief_sections:
        parts.append(_line("strong", section.title))
        if section.text:
            parts.append(_line("span", section.text))
        if section.facts:
            parts.append(_rows([("", ""), *section.facts]))
        if not section.rows:
            continue
        places = section.brief_places
        rows = [[section.columns[place].title for place in places]]
        rows += [[text_of(row[place]) for place in places] for row in section.table_rows]
        parts.append(_rows(rows))
    return _box(parts)


def _rows(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th {_CELL}>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += [
        "<tr>" + "".join(f"<td {_CELL}>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in body
    ]
    return "<table>" + "".join(lines) + "</table>"


def _line(tag: str, text: str) -> str:
    return f"<div><{tag}>{escape(text)}</{tag}></div>"


def _box(parts: Sequence[str]) -> str:
    return f"<div {_BOX}>{''.join(parts)}</div>"
