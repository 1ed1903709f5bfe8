from pathlib import Path

import pytest

from photomask.chip import Quantizer, Recipe, Rule, load_recipe, save_recipe
from photomask.chip.observers import MSE
from photomask.chip.quantizers import PerChannel
from photomask.chip.recipe import PRESETS
from photomask.chip.recipe.saving import recipe_document
from photomask.errors import RecipeError


@pytest.mark.parametrize("name", PRESETS)
def test_a_saved_recipe_is_the_recipe_that_was_saved(name: str, tmp_path: Path):
    recipe = load_recipe(name)
    save_recipe(recipe, tmp_path / "recipe.json")
    again = load_recipe(tmp_path / "recipe.json")
    assert str(again) == str(recipe)
    assert recipe_document(again) == recipe_document(recipe)
    assert (again.keep, again.output_bits) == (recipe.keep, recipe.output_bits)


class Own(Quantizer):
    """A quantizer that no document describes."""


class OwnObserver(MSE):
    """An observer that no document describes."""


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(weight=Own(4, granularity=PerChannel())),
        Recipe(rules=(Rule("first", activation=Own(8)),)),
        Recipe(activation=Quantizer(8, observer=OwnObserver())),
        Recipe(activation=Quantizer(8, narrow=True)),
    ],
)
def test_what_json_cannot_describe_is_refused(recipe: Recipe, tmp_path: Path):
    with pytest.raises(RecipeError, match="JSON"):
        save_recipe(recipe, tmp_path / "recipe.json")
    assert not list(tmp_path.iterdir())
