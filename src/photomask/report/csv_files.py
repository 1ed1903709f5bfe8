"""Tables of a page as CSV files."""

import csv
import io
from pathlib import Path

from photomask.documents import written_whole
from photomask.report.anchors import section_anchors
from photomask.report.page import Page, Section
from photomask.report.values import csv_title, csv_value

OUTPUT = "tables of a report"


def write_csv(page: Page, folder: str | Path) -> list[str]:
    """Writes every table of a page as a CSV file; the folder appears whole or not at all.

    A file is called as the section of its table: `Cost of each step` becomes
    `cost-of-each-step.csv`. Numbers are written without units and prefixes; the head of a column
    names the unit that its numbers share. Files are UTF-8, with the separators of RFC 4180.

    Args:
        page: such as `report.page()`.
        folder: where to; earlier tables of a report are replaced.

    Returns:
        The names of the files, in the order of the page.

    Raises:
        ExportError: the folder holds something else, or the disk refused a file.
    """
    names = []
    with written_whole(Path(folder), OUTPUT) as place:
        for section, anchor in zip(page.sections, section_anchors(page.sections), strict=True):
            if section.rows:
                names.append(f"{anchor}.csv")
                (place / names[-1]).write_bytes(table_csv(section).encode())
    return names


def table_csv(section: Section) -> str:
    """Returns the table of a section as CSV, its totals at the end."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    rows = section.table_rows
    writer.writerow(
        csv_title(column, [row[place] for row in rows])
        for place, column in enumerate(section.columns)
    )
    for row in rows:
        writer.writerow(
            csv_value(cell, column) for cell, column in zip(row, section.columns, strict=True)
        )
    return buffer.getvalue()
