"""The names by which places of a page are linked to."""

import re
from collections.abc import Iterable, Iterator, Sequence

from photomask.report.page import Cell, Row, Section


def section_anchor(title: str) -> str:
    """Returns the anchor of the first section with a title: `Layers of A` → `layers-of-a`.

    It is also the name of the section's table as a file.
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"


def row_anchor(title: str, name: str) -> str:
    """Returns the anchor of a row.

    Args:
        title: of the section whose table has the row.
        name: the text of the row's first cell. Of several rows with one name, the first is meant.
    """
    return f"{section_anchor(title)}.{_escaped(name)}"


def section_anchors(sections: Iterable[Section]) -> list[str]:
    """Returns the anchor of each section; later ones of one title have a number behind it."""
    return list(_numbered(section_anchor(section.title) for section in sections))


def row_anchors(section: str, rows: Sequence[Row]) -> list[str]:
    """Returns the anchor of each row; later ones of one name have a number behind it.

    Args:
        section: the anchor of the section.
        rows: of its table.
    """
    return list(_numbered(f"{section}.{_escaped(text_of(row[0]))}" for row in rows))


def text_of(cell: Cell | str) -> str:
    """Returns what a cell shows."""
    return cell if isinstance(cell, str) else cell.text


def _escaped(name: str) -> str:
    """Writes what links must quote in hexadecimal, so that different names stay different."""
    return re.sub(r"[^A-Za-z0-9_.-]", lambda found: f"~{ord(found[0]):x}~", name)


def _numbered(anchors: Iterable[str]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for anchor in anchors:
        seen[anchor] = seen.get(anchor, 0) + 1
        yield anchor if seen[anchor] == 1 else f"{anchor}~{seen[anchor]}"
