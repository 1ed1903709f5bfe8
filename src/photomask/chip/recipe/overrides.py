"""Replaces some fields of a recipe."""

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
    """Returns a recipe with some fields replaced; its name says which, unless a name is given.

    Args:
        recipe: the recipe that the other fields are taken from.
        document: the document of the recipe; None for a recipe that is made of objects.
        overrides: the new values by field.

    Raises:
        RecipeError: recipes do not have a field, or a field cannot have its value.
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
    """Returns the new value of a field of `Recipe`."""
    if name in ("weight", "activation") and isinstance(given, Mapping):
        if document is None:
            raise RecipeError(
                f"the fields of {name!r} can be merged only with those of a preset or a file; give "
                "a Quantizer to override this field of a recipe that is made of objects"
            )
        own = document.model_dump(mode="json", exclude_unset=True).get(name, {})
        return getattr(_parsed({name: {**own, **given}}), name).build()
    if name == "rules":
        if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
            raise RecipeError(f"rules must be a list of Rule objects or dicts, found {given!r}")
        return tuple(_rule(rule) for rule in given)
    if name == "keep":
        patterns = (given,) if isinstance(given, str) else given
        known = isinstance(patterns, Sequence) and all(isinstance(p, str) for p in patterns)
        if not known:
            raise RecipeError(f"keep must be a pattern or a list of patterns, found {given!r}")
        return tuple(patterns)
    if name == "name" and (not isinstance(given, str) or not given):
        raise RecipeError(f"the name of a recipe must be a non-empty string, found {given!r}")
    return given


def _rule(given: Any) -> Rule:
    if isinstance(given, Rule):
        return given
    if not isinstance(given, Mapping):
        raise RecipeError(f"a rule must be a Rule object or a dict of its fields, found {given!r}")
    try:
        return RuleDocument.parse(json.dumps(dict(given)), "rules").build()
    except (DocumentError, TypeError) as error:
        raise RecipeError(str(error)) from error


def _parsed(changed: Mapping[str, Any]) -> RecipeDocument:
    try:
        return RecipeDocument.parse(json.dumps({"name": "overridden", **changed}), "overrides")
    except (DocumentError, TypeError) as error:
        raise RecipeError(str(error)) from error
