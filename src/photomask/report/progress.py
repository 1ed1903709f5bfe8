"""How long work is shown: a wrapper around the list that it walks."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

Item = TypeVar("Item")

REFRESH_SECONDS = 0.1
"""Between two pictures of a bar in a notebook."""


class Progress(Protocol):
    """Shows how far work has come; the library itself prints nothing."""

    def __call__(self, items: Sequence[Item], label: str) -> Iterable[Item]:
        """Yields the items, one by one, while it shows the label and how many are done."""
        ...


def without_progress(items: Sequence[Item], label: str) -> Iterable[Item]:
    """Shows nothing."""
    return items


def show_progress(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Shows a bar with the label, the items that are done and the time that is left.

    Pass it as `progress=` to any long function of both pipelines. In a terminal the bar stands on
    the standard error and goes when the work is done; in a notebook it stands below the cell. Where
    nobody watches, as in a pipe or a log file, nothing is shown.

    ```python
    from photomask.report import show_progress

    calibrate(prepared, images, progress=show_progress)
    ```

    Args:
        items: what the work walks through; as many steps as the bar has.
        label: of the bar.

    Yields:
        The items, one by one.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    if console.is_jupyter:
        yield from _in_notebook(Bar(*columns, auto_refresh=False), items, label)
        return
    watched = sys.stderr.isatty()
    with Bar(*columns, console=console, transient=True, disable=not watched) as bar:
        yield from bar.track(items, total=len(items), description=label)


def _in_notebook(bar: "Bar", items: Sequence[Item], label: str) -> Iterator[Item]:
    """Shows the bar as an output of the cell, which takes no package for widgets."""
    from IPython.display import DisplayHandle

    task = bar.add_task(label, total=len(items))
    shown = DisplayHandle()
    shown.display(bar)
    last = time.monotonic()
    try:
        for item in items:
            yield item
            bar.advance(task)
            if time.monotonic() - last >= REFRESH_SECONDS:
                shown.update(bar)
                last = time.monotonic()
    finally:
        shown.update(bar)
