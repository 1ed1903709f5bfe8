"""The application: its groups of commands, and what happens to errors."""

import os
import sys
import warnings
from typing import Annotated

import typer
from typer.core import TyperGroup

import photomask
from photomask.cli import attention, chip, demo
from photomask.cli.console import show_error
from photomask.errors import PhotomaskError


class ErrorGroup(TyperGroup):
    """Turns an error that Photomask raises on purpose into a message and exit status 2."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except PhotomaskError as error:
            show_error(error)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=ErrorGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(attention.app, name="attention")
app.add_typer(chip.app, name="chip")
app.add_typer(demo.app, name="demo")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"photomask {photomask.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Make PyTorch models cheaper by a static plan, and prove that what runs is what was planned.

    Exit status: 0 passed, 1 verification failed, 2 usage error, 3 verification not decided.

    Example: photomask demo chip --output out/demo
    """


def main() -> None:
    """Runs the command line."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        app()
    except BrokenPipeError:
        # The reader has gone, as in `photomask chip show DIR | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
