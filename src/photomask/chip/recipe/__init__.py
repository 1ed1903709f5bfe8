"""Recipes are quantization configurations: they choose a quantizer for each tensor of a model."""

from photomask.chip.recipe.matching import Site
from photomask.chip.recipe.presets import PRESETS, load_recipe
from photomask.chip.recipe.rules import Recipe, Rule, SiteQuantizers
from photomask.chip.recipe.saving import save_recipe

__all__ = ["PRESETS", "Recipe", "Rule", "Site", "SiteQuantizers", "load_recipe", "save_recipe"]
