"""`photomask list`: the names that can be typed, and what each is for."""

import json as json_format
from typing import Annotated

import typer

from photomask.cli.console import output
from photomask.cli.names import KINDS, Kind, names_of


def list_names(
    kind: Annotated[
        Kind | None,
        typer.Argument(metavar="KIND", help="What to list. Default: what there is to list."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the list as JSON, for other programs.")
    ] = False,
) -> None:
    """List what can be named: recipes, targets, models, forms and more, and what each is for.

    Example: photomask list recipes
    """
    found = KINDS if kind is None else names_of(kind)
    if json:
        listed = [{"name": name, "purpose": purpose} for name, purpose in found.items()]
        typer.echo(json_format.dumps(listed, indent=1, ensure_ascii=False))
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, purpose in found.items():
        table.add_row(name, purpose)
    output().print(table)
