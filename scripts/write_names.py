"""Writes `src/photomask/cli/names.json`: what can be named on the command line, and what it is for.

    .venv/bin/python scripts/write_names.py

The names come from the registries of the library, so that the command line can list, complete and
check them without PyTorch.
"""

import json

from photomask.attention import FAMILIES
from photomask.chip.cost.accelerator import PURPOSES as ACCELERATORS
from photomask.chip.engines import TorchEngine
from photomask.chip.forms import FORMS
from photomask.chip.operators import OPERATORS
from photomask.chip.recipe import PURPOSES as RECIPES
from photomask.chip.target import PURPOSES as TARGETS
from photomask.cli.execution import ARRAY_ENGINES
from photomask.cli.names import INDEX, Kind
from photomask.cli.sources import hyphenated
from photomask.cli.vision_language import ZOO_MODEL, ZOO_PROMPTS_PURPOSE, ZOO_PURPOSE
from photomask.zoo import catalogue
from photomask.zoo.sources import DATA_SETS


def registered() -> dict[Kind, dict[str, str]]:
    """Returns name → purpose for each kind, as the registries have them."""
    networks = {name: catalogue.entry(name) for name in catalogue.names()}
    return {
        "recipes": RECIPES,
        "targets": TARGETS,
        "accelerators": ACCELERATORS,
        "models": {name: f"{entry.data}: {entry.purpose}" for name, entry in networks.items()},
        "data": {hyphenated(name): purpose for name, (purpose, _) in DATA_SETS.items()},
        "vision-language-models": {ZOO_MODEL: ZOO_PURPOSE},
        "prompts": {ZOO_MODEL: ZOO_PROMPTS_PURPOSE},
        "forms": {form.name: _sentence(form.title) for form in FORMS},
        "engines": {
            name: _first_sentence(engine)
            for name, engine in {"torch": TorchEngine, **ARRAY_ENGINES}.items()
        },
        "operators": {
            operator.model_fields["kind"].default: _first_sentence(operator)
            for operator in OPERATORS
        },
        "families": {
            family.name: f"Models of the type {' or '.join(family.model_types)}."
            for family in FAMILIES
        },
    }


def rendered() -> str:
    """Returns the text of the file."""
    return json.dumps(registered(), indent=1, ensure_ascii=False) + "\n"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


def _first_sentence(described: type) -> str:
    """Returns the first line of a docstring."""
    return (described.__doc__ or "").strip().splitlines()[0].replace("`", "")


if __name__ == "__main__":
    INDEX.write_text(rendered(), encoding="utf-8")
