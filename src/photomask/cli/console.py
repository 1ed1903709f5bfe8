"""Where commands write: results to stdout, everything else to stderr."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from photomask.report import Progress

_IS_QUIET: ContextVar[bool] = ContextVar("_IS_QUIET", default=False)
"""Whether a command shows nothing but its results and errors."""

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
"""What of the library's log is shown: without --verbose, with one, and with two."""


def output() -> "Console":
    """Returns the console of results; 100 columns wide where it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, markup=False, emoji=False, width=100)


def messages() -> "Console":
    """Returns the console of what is said beside the results; it says nothing after --quiet."""
    return _errors(quiet=_IS_QUIET.get())


def _errors(*, quiet: bool = False) -> "Console":
    from rich.console import Console  # shells wait for completions, which show nothing

    return Console(stderr=True, highlight=False, markup=False, emoji=False, quiet=quiet)


def show_error(error: Exception) -> None:
    """Prints what went wrong, without a traceback."""
    from rich.text import Text

    _errors().print(Text("error: ", style="bold red") + Text(str(error), style="red"))


def progress() -> "Progress":
    """Returns what shows how far long work has come; nothing does after --quiet."""
    from photomask.report import show_progress, without_progress

    return without_progress if _IS_QUIET.get() else show_progress


@contextmanager
def speaking(*, quiet: bool, verbose: int) -> Iterator[None]:
    """Says as much as was asked for while a command runs.

    Args:
        quiet: show nothing but results and errors.
        verbose: how often --verbose was given; 1 shows the stages of the work, 2 their details.
    """
    handler, logger = _StandardError(), logging.getLogger("photomask")
    before = logger.level
    token = _IS_QUIET.set(quiet)
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else LEVELS[min(verbose, len(LEVELS) - 1)])
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        _IS_QUIET.reset(token)


class _StandardError(logging.Handler):
    """Writes a line for each record, above a progress bar where one is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        try:
            typer.echo(self.format(record), err=True)
        except Exception:  # noqa: BLE001 - logging tells its own faults, and never ends the work
            self.handleError(record)
