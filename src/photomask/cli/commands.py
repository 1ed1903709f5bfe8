"""What every command has: how much it says, and answers to what cannot be meant."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from photomask.cli.console import show_error, speaking
from photomask.errors import PhotomaskError, UsageError

CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]
"""What click raises for a command line; typer brings a click of its own in newer versions."""

RENAMED: dict[str, dict[str, str]] = {
    "--calibration": {"": "--data"},
    "--prompts": {"": "--data"},
    "--format": {"chip convert": "--encoding"},
    "--samples": {
        command: "--golden-samples"
        for command in ("chip convert", "chip import", "chip train", "chip tune")
    },
    "--weights": {"chip train": "--save-weights"},
    "--engine": {"chip simulate": "--simulator"},
}
"""Options of earlier versions → the command, or any other by "" → what they are called now."""

STATUSES = {"passed": 0, "failed": 1, "not decided": 3}
"""Exit status by the verdict of a verification."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but results and errors.")]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        metavar="",
        show_default=False,
        help="Tell the stages and how long they take; twice: their details too.",
    ),
]
BEHIND = ("--quiet", "-q", "--verbose", "-v")
"""What stands behind a command, and not before it."""


class Command(TyperCommand):
    """A command that answers a missing argument with an example."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the command line."""
        try:
            return super().parse_args(ctx, args)
        except CommandLineError as error:
            parameter = getattr(error, "param", None)
            if parameter is not None and not getattr(error, "message", ""):
                error.message = _advice(self.help or "", parameter)  # type: ignore[attr-defined]
            raise


class ErrorGroup(TyperGroup):
    """Turns an error that Photomask raises on purpose into a message and exit status 2."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except PhotomaskError as error:
            show_error(error)
            raise typer.Exit(2) from None
        except CommandLineError as error:
            _explain(error)
            raise

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parses what stands before the command."""
        try:
            return super().parse_args(ctx, args)
        except CommandLineError as error:
            _explain(error)
            raise


def command(app: typer.Typer, name: str | None = None, cls: type[Command] = Command) -> Any:
    """Returns the decorator that adds a function to an application as a command.

    The command takes --quiet and --verbose beside what the function takes.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(*, quiet: bool, verbose: int, **given: Any) -> None:
            if quiet and verbose:
                raise UsageError("--quiet and --verbose contradict each other: leave one out")
            with speaking(quiet=quiet, verbose=verbose):
                function(**given)

        own = inspect.signature(function)
        keyword = inspect.Parameter.KEYWORD_ONLY
        added = [
            inspect.Parameter("quiet", keyword, default=False, annotation=Quiet),
            inspect.Parameter("verbose", keyword, default=0, annotation=Verbose),
        ]
        run.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*own.parameters.values(), *added]
        )
        run.__annotations__ = {**function.__annotations__, "quiet": Quiet, "verbose": Verbose}
        app.command(name, cls=cls, help=reflowed(function.__doc__ or ""))(run)
        return function

    return register


def reflowed(text: str) -> str:
    """Returns a docstring with one line for each paragraph, so that any terminal can break it."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _advice(help_text: str, parameter: Any) -> str:
    """Says what a missing argument is, and shows a whole command."""
    example = " ".join(help_text.partition("Example:")[2].split())
    told = " ".join((getattr(parameter, "help", None) or "").replace("[required]", "").split())
    return f"It takes: {told} Example: {example}" if example else f"It takes: {told}"


def _explain(error: Any) -> None:
    """Says of an option that is not there what it is called now, or where it stands."""
    name, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if name is None:
        return
    path = context.command_path.partition(" ")[2] if context is not None else ""
    names = RENAMED.get(name, {})
    now = names.get(path) or names.get("")
    if now is not None:
        error.message = f"{name} is called {now} now."
        error.possibilities = None
    elif name in BEHIND:
        error.message = f"{name} stands behind the command: photomask chip show DIR {name}"
        error.possibilities = None
