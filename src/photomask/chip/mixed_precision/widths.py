"""Turns chosen widths into rules of a recipe."""

import copy
import re
from collections.abc import Sequence
from dataclasses import replace

from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import Quantizer
from photomask.chip.recipe import Recipe, Rule, Site
from photomask.chip.recipe.matching import matching
from photomask.errors import RecipeError


def open_sites(prepared: PreparedModel) -> list[Site]:
    """Returns the sites that the recipe does not list in `keep`, in the order of computation."""
    everything = prepared.sites
    kept = {name for pattern in prepared.recipe.keep for name in matching(pattern, everything)}
    return [site for site in everything if site.name not in kept]


def with_bits(template: Quantizer, bits: int) -> Quantizer:
    """Returns a copy, with another width, of a quantizer that is not fitted yet.

    Raises:
        RecipeError: the bits are outside 2..16.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 16:
        raise RecipeError(f"bits must be an integer from 2 to 16, found {bits!r}")
    quantizer = copy.deepcopy(template)
    quantizer.bits = bits
    return quantizer


def recipe_with_widths(
    prepared: PreparedModel, widths: Sequence[tuple[str, str, int]], name: str | None = None
) -> Recipe:
    """Returns the model's recipe with an additional rule for each given width.

    Args:
        prepared: the model with the recipe and the sites.
        widths: for each tensor the site, `"weight"` or `"activation"`, and the bits.
        name: the name of the new recipe; None for the old name.
    """
    templates = prepared.recipe.resolve(prepared.sites)
    given: dict[str, dict[str, Quantizer]] = {}
    for site, role, bits in widths:
        places = [site]
        if role == "weight":  # all layers with the same weight share its quantizer
            owner = prepared.weight_owner(site)
            layers = [node.name for node in prepared.graph.nodes if "weight" in node.constants]
            places = [name for name in layers if prepared.weight_owner(name) == owner]
        for place in places:
            template = getattr(templates[place], role)
            given.setdefault(place, {})[role] = with_bits(template, bits)
    rules = tuple(Rule(_exactly(site), **quantizers) for site, quantizers in given.items())
    recipe = prepared.recipe
    return replace(recipe, name=name or recipe.name, rules=(*recipe.rules, *rules))


def _exactly(site: str) -> str:
    """Returns a pattern that matches one site, also where its name is a keyword of patterns."""
    taken = site in ("first", "last", "residual") or site.startswith(("re:", "operator:"))
    return f"re:{re.escape(site)}" if taken else site
