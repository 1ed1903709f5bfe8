"""Shows a page in a terminal."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from photomask.report.page import Cell, Column, Page, Section, Tone

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

STYLES = {
    Tone.PLAIN: "",
    Tone.GOOD: "green",
    Tone.WARN: "yellow",
    Tone.BAD: "bold red",
    Tone.QUIET: "dim",
}


def print_page(page: Page, console: "Console") -> None:
    """Prints verdict, facts and tables; figures are left out."""
    from rich.text import Text

    for section in page.brief_sections:
        console.print()
        console.print(Text(section.title, style="bold"))
        if section.text:
            console.print(Text(section.text, style="dim"))
        _print_facts(section.facts, console)
        if section.rows:
            console.print(_table(section))
    console.print()
    _print_facts(page.facts, console)
    console.print()
    colour = {True: "green", False: "red", None: "yellow"}[page.passed] if page.judged else ""
    console.print(Text(page.verdict, style=f"bold {colour}".rstrip()))
    for reason in page.reasons:
        console.print(Text(f"  {reason}", style=colour))


def _print_facts(facts: Sequence[tuple[str, str]], console: "Console") -> None:
    from rich.text import Text

    longest = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        console.print(
            Text(f"{name:<{longest + 2}}", style="dim").append(value, style="default not dim")
        )


def render_text(page: Page, width: int = 100) -> str:
    """Returns the page as plain text."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, force_terminal=False)
    print_page(page, console)
    return "\n".join(line.rstrip() for line in buffer.getvalue().strip("\n").splitlines())


def _table(section: Section) -> "Table":
    from rich.table import Table

    shown = section.brief_places
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index in shown:
        _add_column(table, section.columns[index], wraps=index == 0)
    for row in section.table_rows:
        table.add_row(*(_text(row[index]) for index in shown))
    return table


def _add_column(table: "Table", column: Column, *, wraps: bool) -> None:
    """Adds a column; where the terminal is too narrow, the one that wraps gives way first."""
    if column.number:
        table.add_column(column.title, justify="right", no_wrap=True)
    else:
        table.add_column(column.title, justify="left", overflow="ellipsis", no_wrap=not wraps)


def _text(cell: Cell | str) -> "Text":
    from rich.text import Text

    return Text(cell) if isinstance(cell, str) else Text(cell.text, style=STYLES[cell.tone])
