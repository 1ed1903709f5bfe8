"""Recipes are quantization configurations: they choose a quantizer for each tensor of a model."""

from photomask.chip.recipe.matching import Site
from photomask.chip.recipe.presets import PRESETS, PURPOSES, load_recipe
from photomask.chip.recipe.rules import Recipe, Rule, SiteQuantizers
from photomask.chip.recipe.saving import save_recipe

__all__ = [
    "PRESETS",
    "PURPOSES",
    "Recipe",
    "Rule",
    "Site",
    "SiteQuantizers",
    "load_recipe",
    "save_recipe",
]
