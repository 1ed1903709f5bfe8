"""The application: its groups of commands, and what happens to errors."""

import io
import os
import sys
import traceback
import warnings
from typing import Annotated

import typer

import photomask
from photomask.cli import attention, chip, demo, listing, report
from photomask.cli.commands import CommandLineError, ErrorGroup, command, reflowed
from photomask.cli.console import show_error

INTERRUPTED, PIPE_CLOSED = 130, 141
"""Exit statuses that shells give to programs which SIGINT and SIGPIPE end."""


app = typer.Typer(
    cls=ErrorGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(attention.app, name="attention")
app.add_typer(chip.app, name="chip")
app.add_typer(demo.app, name="demo")
app.add_typer(report.app, name="report")
command(app, "list")(listing.list_names)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"photomask {photomask.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Make PyTorch models cheaper by a static plan, and prove that what runs is what was planned.

    Exit status: 0 passed, 1 verification failed, 2 any error, 3 verification not decided, 130
    interrupted, 141 the reader of the output has gone.

    Example: photomask demo chip --output out/demo
    """


app.callback(help=reflowed(_root.__doc__ or ""))(_root)


def main() -> None:
    """Runs the command line.

    What a terminal cannot show is written in escapes of ASCII, or in UTF-8 where click believes
    that a terminal which claims to show ASCII alone is configured wrongly. Only a verification
    that failed gives exit status 1: an error of any other kind gives 2, an interruption 130, a
    closed pipe 141.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run())


def _run() -> int:
    """Runs a command and returns the exit status."""
    try:
        status = app(prog_name="photomask", standalone_mode=False)
        sys.stdout.flush()
    except CommandLineError as error:
        error.show()  # pyright: ignore[reportAttributeAccessIssue]
        return 2
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as in `photomask chip show DIR | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (OSError, MemoryError) as error:
        show_error(error)
        return 2
    except Exception:  # noqa: BLE001 - a fault of ours is shown whole, and is no failed check
        traceback.print_exc()
        return 2
    return status if isinstance(status, int) else 0
