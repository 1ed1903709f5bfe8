"""Recipes with some fields replaced."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypedDict

from photomask.chip.quantizers import Quantizer
from photomask.chip.recipe.documents import RecipeDocument, RuleDocument
from photomask.chip.recipe.rules import Recipe, Rule
from photomask.errors import DocumentError, RecipeError


class Overrides(TypedDict, total=False):
    """The fields of a recipe that may be replaced."""

    name: str
    weight: Quantizer | Mapping[str, Any]
    activation: Quantizer | Mapping[str, Any]
    rules: Sequence[Rule | Mapping[str, Any]]
    keep: str | Sequence[str]
    output_bits: int


def override(
    recipe: Recipe, document: RecipeDocument | None, overrides: Mapping[str, Any]
) -> Recipe:
    """Returns a recipe with other fields; unless it is given a name, its own says which.

    Args:
        recipe: what the fields that are not overridden are taken from.
        document: as which the recipe was written; None for one made of objects.
        overrides: by field.

    Raises:
        RecipeError: a field that recipes do not have, or a value that it cannot have.
    """
    if not overrides:
        return recipe
    known = [field.name for field in fields(Recipe)]
    for name in overrides:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise RecipeError(
                f"a recipe has no field {name!r}; its fields are {', '.join(known)}{meant}"
            )
    changed = {name: _value(name, given, document) for name, given in overrides.items()}
    others = ", ".join(name for name in known if name in changed)
    try:
        return replace(recipe, **{"name": f"{recipe.name} with other {others}", **changed})
    except (TypeError, AttributeError) as error:
        raise RecipeError(f"a recipe cannot have {dict(overrides)!r}: {error}") from error


def _value(name: str, given: Any, document: RecipeDocument | None) -> Any:
    """Returns what a field of `Recipe` becomes."""
    if name in ("weight", "activation") and isinstance(given, Mapping):
        if document is None:
            raise RecipeError(
                f"the fields of {name!r} can be merged with those of a preset or a file; a recipe "
                "made of objects takes a Quantizer"
            )
        own = document.model_dump(mode="json", exclude_unset=True).get(name, {})
        return getattr(_parsed({name: {**own, **given}}), name).build()
    if name == "rules":
        if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
            raise RecipeError(f"rules must be a list of rules, found {given!r}")
        return tuple(_rule(rule) for rule in given)
    if name == "keep":
        patterns = (given,) if isinstance(given, str) else given
        known = isinstance(patterns, Sequence) and all(isinstance(p, str) for p in patterns)
        if not known:
            raise RecipeError(f"keep must be patterns, found {given!r}")
        return tuple(patterns)
    if name == "name" and (not isinstance(given, str) or not given):
        raise RecipeError(f"the name of a recipe must be text, found {given!r}")
    return given


def _rule(given: Any) -> Rule:
    if isinstance(given, Rule):
        return given
    if not isinstance(given, Mapping):
        raise RecipeError(f"a rule must be a Rule or its fields, found {given!r}")
    try:
        return RuleDocument.parse(json.dumps(dict(given)), "rules").build()
    except (DocumentError, TypeError) as error:
        raise RecipeError(str(error)) from error


def _parsed(changed: Mapping[str, Any]) -> RecipeDocument:
    try:
        return RecipeDocument.parse(json.dumps({"name": "overridden", **changed}), "overrides")
    except (DocumentError, TypeError) as error:
        raise RecipeError(str(error)) from error
