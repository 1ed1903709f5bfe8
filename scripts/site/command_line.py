"""Hook of mkdocs: makes the page of the command line from the commands themselves."""

from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGE = "reference/command-line.md"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the page."""
    files.append(File.generated(config, PAGE, content=render()))


def render() -> str:
    """Returns the page: groups, and in each its commands with arguments, options and examples."""
    import typer.main

    from photomask.cli import app

    root = typer.main.get_command(app)
    context = root.make_context("photomask", [], resilient_parsing=True)
    return "\n".join(["# Command line", "", *_described(root, context, 1)])


def _described(command: Any, context: Any, level: int) -> Iterator[str]:
    """Yields the lines of a command, and of those below it."""
    if level > 1:
        yield from (f"{'#' * level} `{context.command_path}`", "")
    is_group = hasattr(command, "list_commands")
    if not is_group:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield from ("```text", usage, "```", "")
    yield from _help(command.help or "")
    yield from _parameters(command, context)
    if not is_group:
        return
    below = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
    for name, each in below:
        if not each.hidden:
            inner = each.make_context(name, [], parent=context, resilient_parsing=True)
            yield from _described(each, inner, level + 1)


def _help(text: str) -> Iterator[str]:
    """Yields the paragraphs of a help text; an example is a block that can be copied."""
    for paragraph in text.split("\n\n"):
        joined = " ".join(paragraph.split())
        label, colon, example = joined.partition(": ")
        if colon and label.startswith("Example"):
            lines = (
                example.strip("`").replace(" --", " \\\n    --") if len(example) > 80 else example
            )
            yield from (f"{label}:", "", "```console", lines, "```", "")
        elif joined:
            yield from (_plain(joined), "")


def _plain(text: str) -> str:
    """Returns a text of the terminal as Markdown."""
    return text.replace("<", "&lt;").replace("{", "&#123;")


def _parameters(command: Any, context: Any) -> Iterator[str]:
    """Yields a table of the arguments and one of the options."""
    shown = [each for each in command.get_params(context) if each.name != "help"]
    for kind, title in (("argument", "Argument"), ("option", "Option")):
        own = [each for each in shown if each.param_type_name == kind]
        if records := [record for each in own if (record := each.get_help_record(context))]:
            yield from (f"| {title} | Meaning |", "|---|---|")
            for written, meaning in records:
                words = _cell(_plain(" ".join(meaning.split())))
                yield f"| `{_cell(written)}` | {words.replace('[required]', '**Required.**')} |"
            yield ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
