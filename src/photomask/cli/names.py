"""The names that a user can type, without PyTorch and what stands behind them.

`names.json` is made from the registries of the library by `scripts/write_names.py`, and a test
holds that it says what they say.
"""

import difflib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

Kind = Literal[
    "recipes",
    "targets",
    "accelerators",
    "models",
    "data",
    "vision-language-models",
    "prompts",
    "forms",
    "engines",
    "operators",
    "families",
]
"""What can be listed."""

KINDS: dict[Kind, str] = {
    "recipes": "How a model is quantized: what --recipe takes.",
    "targets": "What the integers of the hardware can do: what --target takes.",
    "accelerators": "How large and how fast a machine is: what --accelerator takes.",
    "models": "Networks of the zoo: what MODEL takes in `photomask chip`.",
    "data": "Data sets: what --data takes in `photomask chip`.",
    "vision-language-models": "What MODEL takes in `photomask attention`.",
    "prompts": "Sets of prompts: what --data takes in `photomask attention`.",
    "forms": "What `photomask chip export` writes: what --format takes.",
    "engines": "What runs an integer program: what --engine takes.",
    "operators": "The integer operators that a program consists of, and what each computes.",
    "families": "The families of vision-language models whose images are told apart.",
}
"""What can be listed, and what it is."""
INDEX = Path(__file__).with_name("names.json")


@cache
def _index() -> dict[str, dict[str, str]]:
    return json.loads(INDEX.read_text(encoding="utf-8"))


def names_of(kind: Kind) -> dict[str, str]:
    """Returns what each name of a kind is for, by the name, in the order of its registry."""
    return _index()[kind]


def meant(given: str, names: Sequence[str]) -> str:
    """Returns the half sentence that proposes the closest name; nothing where none is close."""
    close = difflib.get_close_matches(given, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def completer(*kinds: Kind, files: bool = False) -> Callable[[str], list[tuple[str, str]]]:
    """Returns the completion of names for a shell.

    Args:
        kinds: whose names are proposed.
        files: propose files and folders too.
    """

    def complete(incomplete: str) -> list[tuple[str, str]]:
        found = [
            (name, purpose)
            for kind in kinds
            for name, purpose in names_of(kind).items()
            if name.startswith(incomplete)
        ]
        return found + (_paths(incomplete) if files else [])

    return complete


def complete_device(incomplete: str) -> list[tuple[str, str]]:
    """Proposes the processor, and the GPUs that the system lists."""
    gpus = sorted(Path("/dev").glob("nvidia[0-9]*"))
    found = [("cpu", "the processor")]
    found += [(f"cuda:{path.name.removeprefix('nvidia')}", "a GPU") for path in gpus]
    return [(name, purpose) for name, purpose in found if name.startswith(incomplete)]


def _paths(incomplete: str) -> list[tuple[str, str]]:
    """Proposes what lies in the folder that was typed so far; hidden files only where asked for."""
    folder, slash, start = incomplete.rpartition("/")
    try:
        entries = sorted(Path(folder + slash or ".").iterdir())
    except OSError:
        return []
    return [
        (f"{folder}{slash}{entry.name}{'/' if entry.is_dir() else ''}", "")
        for entry in entries
        if entry.name.startswith(start) and (start or not entry.name.startswith("."))
    ]
