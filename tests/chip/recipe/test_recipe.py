import dataclasses
import json

import pytest
import torch

from photomask.chip.observers import KL, MSE, MinMax, MovingAverage, Percentile
from photomask.chip.quantizers import PerChannel, PerGroup, PerTensor, Quantizer
from photomask.chip.recipe import PRESETS, Recipe, Rule, Site, load_recipe
from photomask.chip.recipe.documents import RecipeDocument
from photomask.errors import DocumentError, PhotomaskError, RecipeError

SITES = [
    Site("input", "input", False, False),
    Site("conv1", "convolution", True, False, reads=("input",)),
    Site("layer1.0.conv1", "convolution", True, False, reads=("conv1",)),
    Site("layer1.0.conv2", "convolution", True, False, reads=("layer1.0.conv1",)),
    Site(
        "layer1.0.add",
        "add",
        False,
        False,
        True,
        reads=("layer1.0.conv2", "conv1"),
        takes_factors=True,
    ),
    Site("layer2.0.conv1", "convolution", True, False, reads=("layer1.0.add",)),
    Site("fc", "linear", True, True, reads=("layer2.0.conv1",)),
]
ENCODER_SITES = [
    *SITES[:-1],
    Site("block.softmax", "softmax", False, False),
    Site("block.gelu", "gelu", False, False),
    Site("block.add.copy", "copy", False, False),
    Site("block.norm", "normalize", False, False, reads=("layer1.0.add",)),
    SITES[-1],
]
WEIGHT_4 = Quantizer(4, granularity=PerChannel(), narrow=True)
ACTIVATION_4 = Quantizer(4, symmetric=False)


def bits(recipe: Recipe) -> dict[str, tuple[int | None, int]]:
    resolved = recipe.resolve(SITES)
    return {
        name: (pair.weight.bits if pair.weight else None, pair.activation.bits)
        for name, pair in resolved.items()
    }


def test_defaults_reach_every_site_and_outputs_keep_sixteen_bits():
    assert bits(Recipe()) == {
        "input": (None, 8),
        "conv1": (8, 8),
        "layer1.0.conv1": (8, 8),
        "layer1.0.conv2": (8, 8),
        "layer1.0.add": (None, 8),
        "layer2.0.conv1": (8, 8),
        "fc": (8, 16),
    }
    assert bits(Recipe(output_bits=8))["fc"] == (8, 8)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("layer1.0.conv1", {"layer1.0.conv1"}),
        (r"re:layer1\..*", {"layer1.0.conv1", "layer1.0.conv2", "layer1.0.add"}),
        ("re:.*conv1", {"conv1", "layer1.0.conv1", "layer2.0.conv1"}),
        ("operator:linear", {"fc"}),
        ("operator:add", {"layer1.0.add"}),
        ("first", {"conv1"}),
        ("last", {"fc"}),
    ],
)
def test_a_pattern_matches(pattern, expected):
    resolved = bits(Recipe(rules=(Rule(pattern, activation=Quantizer(5)),)))
    assert {name for name, (_, activation) in resolved.items() if activation == 5} == expected


def test_the_later_rule_wins_and_each_half_on_its_own():
    recipe = Recipe(
        rules=(
            Rule("operator:convolution", weight=WEIGHT_4, activation=ACTIVATION_4),
            Rule(r"re:layer1\..*", weight=Quantizer(6, granularity=PerChannel())),
            Rule("layer1.0.conv2", activation=Quantizer(7)),
        )
    )
    resolved = bits(recipe)
    assert resolved["conv1"] == (4, 4)
    assert resolved["layer1.0.conv1"] == (6, 4)
    assert resolved["layer1.0.conv2"] == (6, 7)
    assert resolved["layer1.0.add"] == (None, 8)


def test_kept_sites_stay_at_eight_bits_whatever_the_rules_say():
    recipe = Recipe(
        weight=Quantizer(4, granularity=PerGroup(2), narrow=True, power_of_two=True),
        activation=Quantizer(3, power_of_two=True),
        rules=(Rule("re:.*", weight=WEIGHT_4, activation=ACTIVATION_4),),
        keep=("first", "last"),
    )
    assert bits(recipe)["input"] == (None, 8)
    assert bits(recipe)["conv1"] == (8, 4)
    assert bits(recipe)["layer1.0.conv1"] == (4, 4)
    assert bits(recipe)["layer2.0.conv1"] == (4, 8)  # the classifier reads it
    assert bits(recipe)["fc"] == (8, 16)
    kept, read = recipe.resolve(SITES)["conv1"], recipe.resolve(SITES)["input"]
    assert kept.weight is not None
    # Still for the same hardware: shifts only, no groups needed at 8 bits.
    assert kept.weight.granularity == PerChannel()
    assert kept.weight.power_of_two
    assert kept.weight.narrow
    assert read.activation.power_of_two
    wide = Recipe(activation=Quantizer(12, symmetric=False), keep=("first",))
    assert bits(wide)["input"] == (None, 12)


def test_a_rule_may_set_the_width_of_an_output():
    assert bits(Recipe(rules=(Rule("fc", activation=Quantizer(12)),)))["fc"] == (8, 12)


def test_every_site_gets_its_own_copy_of_the_users_class():
    class Mine(Quantizer):
        pass

    template = Mine(4, granularity=PerChannel())
    resolved = Recipe(weight=template).resolve(SITES)
    weights = [pair.weight for pair in resolved.values() if pair.weight is not None]
    assert all(type(weight) is Mine for weight in weights)
    assert len({id(weight) for weight in [*weights, template]}) == len(weights) + 1
    weights[0].observe(torch.randn(3, 4))
    weights[0].fit()
    assert not weights[1].is_fitted
    assert template.observer.is_empty


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("layer1.0.conv9", "layer1.0.conv1"),
        (r"re:layer3\..*", "layer1.0.conv1"),
        ("operator:convolutions", "operators here: add, convolution, input, linear"),
        ("zzzzzzzz", "7 sites, none alike"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_with_a_hint(pattern, hint):
    for recipe in (Recipe(rules=(Rule(pattern, weight=WEIGHT_4),)), Recipe(keep=(pattern,))):
        with pytest.raises(RecipeError, match="matches nothing") as caught:
            recipe.resolve(SITES)
        assert hint in str(caught.value)


def test_first_needs_a_site_with_a_weight():
    with pytest.raises(RecipeError, match="no site has a weight"):
        Recipe(keep=("first",)).resolve(SITES[:1])


def test_a_rule_about_weights_where_there_are_none_is_an_error():
    with pytest.raises(RecipeError, match="no site that it matches has a weight"):
        Recipe(rules=(Rule("operator:add", weight=WEIGHT_4),)).resolve(SITES)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rule("conv1"),
        lambda: Rule("", weight=WEIGHT_4),
        lambda: Rule("re:(", weight=WEIGHT_4),
        lambda: Rule("conv1", weight=4),
        lambda: Recipe(activation=Quantizer(8, granularity=PerGroup(4))),
        lambda: Recipe(weight=Quantizer(8, granularity=PerChannel(1))),
        lambda: Recipe(keep=("re:[",)),
        lambda: Recipe(output_bits=17),
        lambda: Recipe(weight=Quantizer),
    ],
)
def test_impossible_requests_are_refused_at_construction(make):
    with pytest.raises(RecipeError):
        make()


def test_a_recipe_never_changes():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().output_bits = 8


def test_print_is_a_table():
    recipe = Recipe(
        rules=(Rule("operator:add", activation=Quantizer(16, symmetric=False)),), keep=("first",)
    )
    assert str(recipe).splitlines() == [
        "recipe custom",
        "sites         of           quantizer",
        "*             weights      8-bit signed symmetric, per channel, MinMax, narrow",
        "*             activations  8-bit affine, per tensor, MinMax",
        "outputs       activations  16-bit",
        "operator:add  activations  16-bit affine, per tensor, MinMax",
        "first         both         at least 8-bit (keep)",
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_resolve_fit_and_print(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert str(recipe).startswith(f"recipe {name}\n")
    x = torch.randn(8, 20, 3, 3, generator=torch.Generator().manual_seed(0))
    for pair in recipe.resolve(ENCODER_SITES).values():
        for quantizer in (pair.weight, pair.activation):
            if quantizer is not None:
                quantizer.observe(x)
                quantizer.fit()
                assert quantizer.format.bits == quantizer.bits


def test_preset_names_say_their_bits():
    for name in PRESETS:
        pair = load_recipe(name).resolve(ENCODER_SITES)["layer1.0.conv1"]
        assert pair.weight is not None
        assert name.startswith(f"w{pair.weight.bits}a{pair.activation.bits}")


def test_shift_only_preset_has_powers_of_two_and_no_zero_points():
    for pair in load_recipe("w8a8-po2").resolve(SITES).values():
        for quantizer in (pair.weight, pair.activation):
            if quantizer is not None:
                assert quantizer.power_of_two
                assert quantizer.symmetric
                assert quantizer.signed
                assert quantizer.granularity == PerTensor()


def test_a_document_describes_the_same_quantizers(tmp_path):
    document = {
        "name": "mine",
        "weight": {
            "bits": 4,
            "granularity": {"per_group": 32, "multiplier_bits": 6},
            "observer": {"percentile": 99.99},
            "symmetric": True,
        },
        "activation": {"observer": "kl"},
        "rules": [
            {"match": "operator:add", "activation": {"bits": 16, "observer": "min_max"}},
            {
                "match": "fc",
                "weight": {"observer": "mse", "granularity": "per_tensor", "symmetric": False},
                "activation": {"observer": {"moving_average": 0.5}, "symmetric": True},
            },
        ],
        "keep": ["first"],
        "output_bits": 12,
    }
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(document))
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    assert recipe.weight.granularity == PerGroup(32, 6)
    assert recipe.weight.narrow
    assert isinstance(recipe.weight.observer, Percentile)
    assert recipe.weight.observer.percent == 99.99
    assert isinstance(recipe.activation.observer, KL)
    assert not recipe.activation.symmetric
    add, fc = recipe.rules
    assert add.weight is None
    assert add.activation is not None
    assert isinstance(add.activation.observer, MinMax)
    assert fc.weight is not None
    assert isinstance(fc.weight.observer, MSE)
    assert fc.weight.granularity == PerTensor()
    assert not fc.weight.narrow
    assert fc.activation is not None
    assert isinstance(fc.activation.observer, MovingAverage)
    assert fc.activation.symmetric
    assert (recipe.keep, recipe.output_bits) == (("first",), 12)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_being_written(name):
    assert RecipeDocument.parse(PRESETS[name].render(), name) == PRESETS[name]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"name": "x", "unknown": 1}',
        '{"name": "x", "weight": {"bits": 17}}',
        '{"name": "x", "weight": {"bits": "4"}}',
        '{"name": "x", "weight": {"granularity": "per_row"}}',
        '{"name": "x", "activation": {"granularity": "per_channel"}}',
        '{"name": "x", "activation": {"observer": {"percentile": 20}}}',
        '{"name": "x", "schema_version": 2}',
    ],
)
def test_a_wrong_document_is_an_error(text, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(DocumentError, match=r"recipe\.json"):
        load_recipe(path)


@pytest.mark.parametrize(
    "weight", [{"symmetric": False, "granularity": {"per_group": 4}}, {"signed": False}]
)
def test_an_impossible_document_is_an_error(weight, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"name": "x", "weight": weight}))
    with pytest.raises(PhotomaskError):
        load_recipe(path)


def test_an_unknown_name_lists_the_presets():
    with pytest.raises(RecipeError, match="w8a8-minmax"):
        load_recipe("w9a9")
