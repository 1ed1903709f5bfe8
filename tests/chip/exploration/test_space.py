"""A search space says what is combined, and every choice becomes what it says."""

import pytest
from pydantic import ValidationError
from torch import Tensor, nn

from photomask.chip import calibrate, convert, prepare
from photomask.chip.cost import load_accelerator
from photomask.chip.exploration import LayerGroup, PruningChoice, SearchSpace
from photomask.chip.pruning import Blocks, Magnitude, NofM, Wanda
from photomask.chip.recipe import load_recipe
from photomask.errors import DocumentError

SPACE = SearchSpace(
    recipes=("w8a8", "w4a8"),
    groups=(
        LayerGroup(name="all", weight_bits=(3, 6), activation_bits=(5,)),
        LayerGroup(name="head", match="head", weight_bits=(2,), weight_algorithms=("sawb",)),
    ),
    prunings=(PruningChoice(sparsity=0.5), PruningChoice(pattern=NofM(kept=2, group=4))),
    targets=("asic", "tflite"),
    accelerators=("reference", "edge"),
)


def chosen(**changes: str) -> dict[str, str]:
    own = {name: choices[0] for name, choices in SPACE.parameters().items()}
    return own | {name.replace("__", ": ").replace("_", " "): v for name, v in changes.items()}


def test_the_combinations_are_the_product_of_all_choices():
    assert SPACE.combinations == 2 * 3 * 2 * 2 * 2 * 3 * 2 * 2
    assert f"{SPACE.combinations:,} combinations" in str(SPACE)


def test_own_choices_give_the_preset_itself():
    for name, parameters in SPACE.presets():
        point = SPACE.point_of(parameters)
        assert point.recipe.build().rows() == load_recipe(name).rows()
        assert point.pruning is None
        assert (point.target.name, point.accelerator.name) == ("asic", "reference")


def test_widths_of_a_group_reach_its_sites_and_no_others(
    small_network: nn.Module, small_images: Tensor
):
    choice = chosen(all__weight_bits="6", all__activation_bits="5", head__weight_bits="2")
    recipe = SPACE.point_of(choice).recipe
    prepared = prepare(small_network, recipe.build(), small_images[:1])
    program = convert(calibrate(prepared, small_images), "asic")
    bits = {
        step.node: program.formats[step.tensors["weight"]].bits
        for step in program.steps
        if "weight" in step.tensors
    }
    assert bits.pop("head") == 2
    assert set(bits.values()) == {6}
    assert {e.format.bits for e in program.edges.values() if e.role == "input"} == {5}


def test_another_algorithm_keeps_the_fields_that_the_hardware_asks_for():
    space = SearchSpace(
        recipes=("w8a8-po2", "w8a8-symmetric"),
        groups=(
            LayerGroup(
                name="all",
                weight_algorithms=("tqt", "binary", "ternary"),
                activation_algorithms=("pact", "lsq"),
            ),
        ),
        prunings=(),
    )
    own = dict(space.presets())["w8a8-po2"]
    quantizer = space.point_of({**own, "all: weight algorithm": "tqt"}).recipe.build().weight
    assert type(quantizer).__name__ == "TQT"
    assert quantizer.power_of_two
    assert str(quantizer.granularity) == str(load_recipe("w8a8-po2").weight.granularity)
    own = dict(space.presets())["w8a8-symmetric"]
    for algorithm in ("binary", "ternary"):
        found = space.point_of({**own, "all: weight algorithm": algorithm}).recipe.build()
        assert found.weight.bits == 2
    assert space.point_of({**own, "all: activation algorithm": "lsq"}).recipe.activation.symmetric


def test_a_point_survives_its_document_with_what_is_unset():
    space = SearchSpace(groups=(LayerGroup(name="all", weight_algorithms=("ternary",)),))
    own = {name: choices[-1] for name, choices in space.parameters().items()}
    point = space.point_of(own)
    again = type(point).parse(point.render(), "here")
    assert again == point
    assert again.fingerprint() == point.fingerprint()
    assert again.recipe.build().rows() == point.recipe.build().rows()


def test_the_fingerprint_follows_the_figures_and_not_the_name():
    point = SPACE.point_of(chosen())
    renamed = point.model_copy(update={"recipe": point.recipe.model_copy(update={"name": "b"})})
    assert renamed.fingerprint() == point.fingerprint()
    others = (
        SPACE.point_of(chosen(target="tflite")),
        SPACE.point_of(chosen(accelerator="edge")),
        SPACE.point_of(chosen(pruning="magnitude 2:4")),
        SPACE.point_of(chosen(all__weight_bits="3")),
    )
    assert len({each.fingerprint() for each in (point, *others)}) == 5


def test_tiles_are_blocks_in_the_size_of_the_array():
    array = load_accelerator("reference").model_copy(update={"rows": 4, "columns": 8})
    choice = PruningChoice(method="wanda", sparsity=0.5, pattern="tiles", scope="global")
    pruner = choice.pruner(array)
    assert type(pruner) is Wanda
    assert pruner.pattern == Blocks(outputs=8, inputs=4)
    assert (pruner.sparsity, pruner.scope) == (0.5, "global")
    assert type(PruningChoice(sparsity=0.5).pruner(array)) is Magnitude


def test_prunings_that_differ_have_labels_that_differ():
    choices = [
        PruningChoice(method=method, sparsity=share, pattern=pattern, scope=scope, layers=layers)
        for method in ("magnitude", "wanda")
        for share in (0.25, 0.5)
        for pattern in (None, "tiles", Blocks(outputs=2, inputs=3))
        for scope in ("layer", "global")
        for layers in (None, ("first",), ("first", "last"))
    ]
    choices += [PruningChoice(pattern=NofM(kept=kept, group=4)) for kept in (1, 2)]
    assert len({choice.label for choice in choices}) == len(choices)


def test_names_and_documents_give_the_same_resolved_space():
    resolved = SPACE.resolved()
    assert resolved.parameters() == SPACE.parameters()
    again = SearchSpace.parse(resolved.render(), "here")
    assert again == resolved
    assert again.resolved() == resolved


def test_a_space_is_read_from_a_file(tmp_path):
    (tmp_path / "space.json").write_text(SPACE.render())
    assert SearchSpace.load(tmp_path / "space.json") == SPACE
    (tmp_path / "other.json").write_text('{"recipe": ["w8a8"]}')
    with pytest.raises(DocumentError, match="recipe"):
        SearchSpace.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"recipes": ()}, "lists nothing"),
        ({"recipes": ("w8a8", "w8a8")}, "the name 'w8a8'"),
        ({"recipes": ("w8a9",)}, "w8a9"),
        ({"targets": ("tpu",)}, "tpu"),
        ({"limits": {"accuracy": 90.0}}, "accuracy is not a cost"),
        ({"prunings": (PruningChoice(sparsity=0.5), PruningChoice(sparsity=0.5))}, "same name"),
        ({"groups": (LayerGroup(name="a"), LayerGroup(name="a"))}, "two groups"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(fields: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        SearchSpace(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight_bits": (1,)}, "between 2 and 16"),
        ({"activation_bits": (4, 4)}, "twice"),
        ({"match": "re:("}, "regular expression"),
        ({"weight_algorithms": ("best",)}, "expected one of"),
    ],
)
def test_a_group_that_cannot_be_searched_is_refused(fields: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        LayerGroup(name="all", **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sparsity": 1.5},
        {"sparsity": 0.3, "pattern": NofM(kept=2, group=4)},
        {"sparsity": 0.5, "pattern": "tiles", "scope": "output"},
    ],
)
def test_a_pruning_that_contradicts_itself_is_refused(fields: dict):
    with pytest.raises(ValidationError):
        PruningChoice(**fields)
