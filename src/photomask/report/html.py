"""Writes a page as one HTML file that needs nothing else."""

from pathlib import Path

from photomask.dependencies import OptionalPackage
from photomask.documents import write_file
from photomask.report.page import Cell, Page

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def write_page(page: Page, path: Path) -> None:
    """Writes a page; the file appears whole or not at all.

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
    return template.render(page=page, cell_of=_cell)


def _cell(value: Cell | str) -> Cell:
    return Cell(value) if isinstance(value, str) else value
