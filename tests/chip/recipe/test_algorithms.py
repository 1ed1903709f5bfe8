"""Quantizers of the field, asked for in JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from photomask.chip import Recipe, load_recipe
from photomask.chip.microscaling import MX_FORMATS
from photomask.chip.observers import MSE, MeanMagnitude, Percentile
from photomask.chip.quantizers import (
    LSQ,
    TQT,
    Binary,
    PerChannel,
    PerGroup,
    PowerOfTwoFactors,
    Quantizer,
)
from photomask.chip.recipe import save_recipe
from photomask.chip.recipe.documents import (
    ACTIVATION_ALGORITHMS,
    FACTORS,
    OBSERVERS,
    WEIGHT_ALGORITHMS,
    RecipeDocument,
)
from photomask.errors import DocumentError, RecipeError


def parsed(**fields: Any) -> Recipe:
    text = json.dumps({"name": "x", **fields})
    return RecipeDocument.parse(text, "x.json").build()


@pytest.mark.parametrize("name", WEIGHT_ALGORITHMS)
def test_weights_by_algorithm(name: str, tmp_path: Path):
    recipe = parsed(weight={"algorithm": name, "bits": 2})
    assert type(recipe.weight) is WEIGHT_ALGORITHMS[name]
    assert recipe.weight.bits == 2
    assert recipe.weight.granularity == PerChannel()
    assert recipe.weight.narrow
    assert_saved_alike(recipe, tmp_path)


@pytest.mark.parametrize("name", ACTIVATION_ALGORITHMS)
def test_activations_by_algorithm(name: str, tmp_path: Path):
    recipe = parsed(activation={"algorithm": name, "bits": 4})
    assert type(recipe.activation) is ACTIVATION_ALGORITHMS[name]
    assert recipe.activation.symmetric == (
        name in ("pact", "dorefa", "rcf", "tqt", "power_of_two_factors")
    )
    assert_saved_alike(recipe, tmp_path)


@pytest.mark.parametrize("name", MX_FORMATS)
def test_microscaling_formats_by_algorithm(name: str, tmp_path: Path):
    recipe = parsed(weight={"algorithm": name}, activation={"algorithm": name, "axis": -1})
    assert (recipe.weight.element, recipe.weight.axis) == (MX_FORMATS[name], 1)
    assert (recipe.activation.element, recipe.activation.axis) == (MX_FORMATS[name], -1)
    assert_saved_alike(recipe, tmp_path)


def test_power_of_two_factors_by_algorithm(tmp_path: Path):
    factors = {"algorithm": "power_of_two_factors", "bits": 6, "observer": {"percentile": 99.0}}
    recipe = parsed(rules=[{"match": "norm_inputs", "activation": factors}])
    save_recipe(recipe, tmp_path / "recipe.json")
    again = load_recipe(tmp_path / "recipe.json")
    found = [each.rules[0].activation for each in (recipe, again)]
    x = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 31)
    for quantizer in found:
        assert type(quantizer) is PowerOfTwoFactors
        assert quantizer.bits == 6
        assert isinstance(quantizer.observer, Percentile)
        quantizer.observe(x)
        quantizer.fit()
    assert str(again) == str(recipe)
    assert torch.equal(found[0].scale, found[1].scale)
    assert torch.equal(found[0](x), found[1](x))


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ({"algorithm": "power_of_two_factors", "symmetric": False}, "decides 'symmetric' itself"),
        ({"algorithm": "power_of_two_factors", "signed": False}, "decides 'signed' itself"),
        ({"algorithm": "power_of_two_factors", "power_of_two": True}, "decides 'power_of_two'"),
        ({"algorithm": "power_of_two_factors", "bits": 16}, "leave no room for factors"),
        ({"algorithm": "power_of_two_factors", "axis": 1}, "has no axis"),
        ({"algorithm": "mxfp4", "bits": 5}, "'mxfp4' decides 'bits' itself, found 5"),
        ({"algorithm": "mxint8", "observer": "mse"}, "decides 'observer' itself"),
        ({"algorithm": "lsq", "axis": 1}, "'lsq' has no axis, found axis 1"),
    ],
)
def test_what_an_algorithm_decides_itself_is_refused(activation: dict[str, Any], message: str):
    with pytest.raises(RecipeError, match=message):
        parsed(activation=activation)


def assert_saved_alike(recipe: Recipe, folder: Path) -> None:
    """What is saved and read again fits the same scales."""
    save_recipe(recipe, folder / "saved.json")
    x = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    again = load_recipe(folder / "saved.json")
    pairs = ((recipe.weight, again.weight), (recipe.activation, again.activation))
    for mine, its in pairs:
        assert type(mine) is type(its)
        assert repr(mine) == repr(its)
        for quantizer in (mine, its):
            quantizer.observe(x)
            quantizer.fit()
        assert torch.equal(mine(x), its(x))


def test_an_unknown_algorithm_or_observer_is_refused_with_the_names_of_the_tables():
    for part, table in (
        ("weight", (*WEIGHT_ALGORITHMS, *MX_FORMATS)),
        ("activation", (*ACTIVATION_ALGORITHMS, FACTORS, *MX_FORMATS)),
    ):
        with pytest.raises(DocumentError, match=f"expected one of {', '.join(table)}"):
            parsed(**{part: {"algorithm": "lsqplus"}})
        with pytest.raises(DocumentError, match=f"expected one of {', '.join(OBSERVERS)}"):
            parsed(**{part: {"observer": "minmax"}})


def test_options_reach_the_algorithm():
    weight = {"algorithm": "lsq", "bits": 3, "observer": "mse", "granularity": "per_tensor"}
    recipe = parsed(weight=weight, activation={"algorithm": "lsq", "signed": True})
    assert isinstance(recipe.weight.observer, MSE)
    assert isinstance(recipe.activation, LSQ)
    assert isinstance(recipe.activation.observer, MeanMagnitude)
    assert recipe.activation.signed
    assert isinstance(parsed(weight={"algorithm": "binary"}).weight, Binary)
    assert isinstance(parsed(weight={"algorithm": "tqt"}).weight, TQT)


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ({"weight": {"algorithm": "lsqplus"}}, DocumentError, "algorithm"),
        ({"weight": {"algorithm": "pact"}}, DocumentError, "algorithm"),
        ({"activation": {"algorithm": "sawb"}}, DocumentError, "algorithm"),
        ({"activation": {"algorithm": "pact", "symmetric": False}}, RecipeError, "LSQPlus"),
        ({"weight": {"algorithm": "ternary", "bits": 4}}, RecipeError, "codes of 2 bits"),
        ({"weight": {"algorithm": "sawb", "observer": "mse"}}, RecipeError, "takes no observer"),
        ({"weight": {"algorithm": "sawb", "narrow": False}}, RecipeError, "balanced"),
        (
            {"weight": {"algorithm": "lsq", "granularity": {"per_group": 4}}},
            RecipeError,
            "per tensor or per channel",
        ),
        ({"weight": {"algorithm": "lsq", "power_of_two": True}}, RecipeError, "use TQT"),
        ({"activation": {"largest_factor": 4}}, RecipeError, "'uniform' has no factors"),
    ],
)
def test_what_an_algorithm_has_no_place_for_is_refused(fields, error, match):
    with pytest.raises(error, match=match):
        parsed(**fields)


def test_a_class_of_ones_own_stays_in_python(tmp_path: Path):
    class Own(LSQ):
        pass

    with pytest.raises(RecipeError, match="Own cannot be written as JSON"):
        save_recipe(Recipe(weight=Own(4)), tmp_path / "own.json")
    odd = Quantizer(4, observer=MeanMagnitude(), granularity=PerGroup(4))
    with pytest.raises(RecipeError, match="observer MeanMagnitude"):
        save_recipe(Recipe(weight=odd), tmp_path / "own.json")
