"""Where commands write: results to stdout, everything else to stderr."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")


def output() -> Console:
    """Returns the console of results; 100 columns wide where it is no terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, markup=False, emoji=False, width=100)


def messages() -> Console:
    """Returns the console of progress and errors."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def show_error(error: Exception) -> None:
    """Prints what went wrong, without a traceback."""
    messages().print(Text("error: ", style="bold red") + Text(str(error), style="red"))


def show_progress(items: Sequence[Item], label: str) -> Iterable[Item]:
    """Yields the items and shows how many are done, if somebody is watching."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=messages(), transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        yield from progress.track(items, total=len(items), description=label)
