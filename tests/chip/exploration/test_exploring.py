"""An exploration measures integer programs, keeps what is best, and says why others failed."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    NumpyEngine,
    calibrate,
    convert,
    export,
    load_recipe,
    prepare,
)
from photomask.chip.cost import estimate
from photomask.chip.exploration import (
    Evaluator,
    Exploration,
    ExploredPoint,
    LayerGroup,
    PruningChoice,
    SearchSpace,
    accumulator_bits,
    explore,
    save_front_picture,
    weight_bytes,
)
from photomask.chip.forms.memory import STORAGES, MemoryForm
from photomask.chip.pruning import Magnitude, NofM, prune
from photomask.chip.training import TrainingSettings
from photomask.errors import DataError, DocumentError, RecipeError, UsageError

SPACE = SearchSpace(
    recipes=("w8a8", "w4a8", "w4a4"),
    groups=(LayerGroup(name="all", weight_bits=(2, 3), activation_bits=(3,)),),
    prunings=(PruningChoice(pattern=NofM(kept=1, group=4)), PruningChoice(sparsity=0.5)),
    accelerators=("reference", "edge"),
)
OBJECTIVES = ("accuracy", "weight_bytes", "accumulator_bits", "cycles", "energy_pj")
TRIALS = 8


def random_sampler() -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=0)


@pytest.fixture(scope="module")
def labels(small_network: nn.Module, small_images: Tensor) -> Tensor:
    with torch.no_grad():
        return small_network(small_images).argmax(dim=1)


@pytest.fixture(scope="module")
def storage() -> optuna.storages.BaseStorage:
    return optuna.storages.InMemoryStorage()


@pytest.fixture(scope="module")
def found(
    small_network: nn.Module,
    small_images: Tensor,
    labels: Tensor,
    storage: optuna.storages.BaseStorage,
) -> Exploration:
    return explore(
        small_network,
        small_images,
        SPACE,
        test=(small_images, labels),
        trials=TRIALS,
        storage=storage,
        objectives=OBJECTIVES,
        sampler=random_sampler(),
    )


def costs(point: ExploredPoint) -> np.ndarray:
    values = np.array(point.figures().values(OBJECTIVES))
    return values * np.array([-1, 1, 1, 1, 1])


def test_the_presets_are_the_first_trials(found: Exploration):
    assert [trial.preset for trial in found.trials[:3]] == ["w8a8", "w4a8", "w4a4"]
    assert {trial.preset for trial in found.trials[3:]} == {""}
    assert [trial.number for trial in found.trials] == list(range(len(found.trials)))
    for trial in found.trials[:3]:
        assert trial.point.recipe.build().rows() == load_recipe(trial.preset).rows()
        assert trial.point.pruning is None


def test_the_front_contains_or_dominates_every_preset(found: Exploration):
    front = [costs(point) for point in found.front().points]
    for preset in found.trials[:3]:
        own = costs(preset)
        assert any((other <= own).all() for other in front)


def test_the_front_is_what_nothing_else_dominates(
    found: Exploration, storage: optuna.storages.BaseStorage
):
    table = np.array([costs(point) for point in found.measured])
    numbers = [point.number for point in found.measured]
    kept = set()
    for at, own in enumerate(table):
        beaten = ((table <= own).all(axis=1) & (table < own).any(axis=1)).any()
        if not beaten and not (table[:at] == own).all(axis=1).any():
            kept.add(numbers[at])
    assert {point.number for point in found.front().points} == kept
    study = optuna.load_study(study_name="exploration", storage=storage)
    assert kept <= {trial.number for trial in study.best_trials}


def test_a_front_over_one_metric_is_its_best_point(found: Exploration):
    (best,) = found.front(["weight_bytes"]).points
    assert best.figures().weight_bytes == min(p.figures().weight_bytes for p in found.measured)
    with pytest.raises(UsageError, match="some of accuracy"):
        found.front(["size"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="twice"):
        found.front(["cycles", "cycles"])


def test_a_saved_point_gives_the_same_program_by_hand(
    found: Exploration, small_network: nn.Module, small_images: Tensor, labels: Tensor, tmp_path
):
    for point in found.measured[:6]:
        folder = tmp_path / str(point.number)
        point.save(folder)
        again = ExploredPoint.load(folder)
        assert again.point == point.point
        prepared = prepare(small_network, folder / "recipe.json", small_images[:1])
        if again.point.pruning is not None:
            prune(prepared, again.point.pruning.pruner(again.point.accelerator))
        program = convert(calibrate(prepared, small_images), again.point.target)
        assert program.content_hash() == point.figures().program_sha256
        evaluator = Evaluator(small_network, small_images, (small_images, labels))
        assert evaluator.program(again.point).content_hash() == program.content_hash()


def test_an_altered_point_is_refused(found: Exploration, tmp_path):
    found.trials[0].save(tmp_path / "point")
    file = tmp_path / "point" / "point.json"
    file.write_text(file.read_text().replace('"accuracy": 100.0', '"accuracy": 99.0'))
    with pytest.raises(DocumentError, match="altered"):
        ExploredPoint.load(file)


def program_of(point: ExploredPoint, model: nn.Module, images: Tensor) -> IntegerProgram:
    return Evaluator(model, images, (images, torch.zeros(len(images)).long())).program(point.point)


def test_the_figures_are_those_of_the_program(
    found: Exploration, small_network: nn.Module, small_images: Tensor, labels: Tensor
):
    for point in found.measured[::5]:
        program, figures = program_of(point, small_network, small_images), point.figures()
        codes = program.quantize_input(small_images).numpy()
        scores = NumpyEngine(program).run(codes)[program.outputs[0]]
        assert figures.accuracy == 100 * float((scores.argmax(axis=1) == labels.numpy()).mean())
        totals = estimate(program, point.point.accelerator).totals
        assert (figures.cycles, figures.energy_pj) == (totals.cycles.total, totals.energy.total_pj)
        bits = 1
        for edge in program.edges.values():
            while edge.role == "accumulator" and not (
                -(1 << (bits - 1)) <= edge.low and edge.high < 1 << (bits - 1)
            ):
                bits += 1
        assert figures.accumulator_bits == accumulator_bits(program) == bits
        assert figures.samples == 16


def test_the_bytes_of_weights_are_those_of_memory_images(
    small_network: nn.Module, small_images: Tensor, tmp_path: Path
):
    pruners = {"dense": None, "2:4": Magnitude(pattern=NofM(kept=2, group=4)), "80": Magnitude(0.8)}
    sizes = {}
    for name, pruner in pruners.items():
        prepared = prepare(small_network, load_recipe("w8a8"), small_images[:1])
        if pruner is not None:
            prune(prepared, pruner)
        program = convert(calibrate(prepared, small_images), "asic")
        form = MemoryForm(encodings=("bin",), compression=tuple(STORAGES))
        export(program, tmp_path / name, program.quantize_input(small_images[:1]), form=form)
        images = (tmp_path / name / "memory").rglob("weight*.bin")
        words = [re.findall(r"^[01]{32}$", path.read_text(), re.MULTILINE) for path in images]
        sizes[name] = 4 * sum(map(len, words))
        assert weight_bytes(program) == sizes[name]
    assert sizes["dense"] == 3 * 8 * 9 + 8 * 8 * 9 + 8 * 5
    assert sizes["80"] < sizes["2:4"] < sizes["dense"]


def test_impossible_combinations_are_trials_with_reasons(
    small_network: nn.Module, small_images: Tensor, labels: Tensor
):
    space = SearchSpace(
        recipes=("w8a8", "w8a16", "w8a8-symmetric"),
        groups=(),
        prunings=(PruningChoice(pattern=NofM(kept=2, group=5)),),
        targets=("deeploy", "asic"),
        accelerators=("reference",),
    )
    found = explore(
        small_network,
        small_images,
        space,
        test=(small_images, labels),
        trials=space.combinations,
        sampler=optuna.samplers.GridSampler(space.parameters(), seed=0),
    )
    # The three presets are among the combinations, so the grid repeats what they were.
    tried = {t.point.fingerprint(): t.outcome for t in found.trials if t.outcome != "repeated"}
    assert Counter(tried.values()) == {"measured": 3, "infeasible": space.combinations - 3}
    reasons = {
        (t.point.recipe.name, t.point.pruning is None, t.point.target.name): t.reason
        for t in found.trials
        if t.outcome == "infeasible"
    }
    assert "zero point" in reasons["w8a8", True, "deeploy"]
    assert "cannot be 2:5 sparse" in reasons["w8a8", False, "asic"]
    assert "16" in reasons["w8a16", True, "asic"]
    assert sum(found.reasons().values()) == found.counts()["infeasible"]
    assert {p.point.recipe.name for p in found.measured} <= {"w8a8", "w8a8-symmetric"}
    assert "infeasible" in str(found)


def test_a_repeated_point_is_not_measured_twice_and_does_not_count(
    small_network: nn.Module, small_images: Tensor, labels: Tensor
):
    space = SearchSpace(recipes=("w8a8", "w8a16"), groups=(), prunings=())
    found = explore(
        small_network,
        small_images,
        space,
        test=(small_images, labels),
        trials=1000,
        sampler=random_sampler(),
    )
    first: dict[str, ExploredPoint] = {}
    for trial in found.trials:
        earlier = first.setdefault(trial.point.fingerprint(), trial)
        if trial.outcome == "repeated":
            assert trial.figures() == earlier.figures()
            assert trial.reason == f"the point of trial {earlier.number}"
    assert len(first) == space.combinations
    assert len(found.trials) > len(first)


def test_a_point_beyond_a_limit_is_infeasible(
    small_network: nn.Module, small_images: Tensor, labels: Tensor
):
    space = SearchSpace(
        recipes=("w8a8", "w4a8"), groups=(), prunings=(), limits={"weight_bytes": 600}
    )
    found = explore(small_network, small_images, space, test=(small_images, labels), trials=2)
    assert [trial.outcome for trial in found.trials] == ["infeasible", "measured"]
    assert "weight_bytes is 832, beyond the limit of 600" in found.trials[0].reason
    with pytest.raises(UsageError, match="trial 0 has no figures"):
        found.trials[0].figures()


def test_a_pruner_of_optuna_stops_trials_by_the_accuracy_so_far(
    small_network: nn.Module, small_images: Tensor, labels: Tensor
):
    found = explore(
        small_network,
        small_images,
        SPACE,
        test=(small_images, labels),
        trials=3,
        objectives=["accuracy"],
        pruner=optuna.pruners.ThresholdPruner(lower=101.0),
    )
    assert found.counts()["stopped"] == 3
    assert found.trials[0].reason.endswith("% after 2 samples")
    assert not found.front().points
    with pytest.raises(UsageError, match="at least two objectives"):
        save_front_picture(found, "front.svg")


def test_a_short_training_belongs_to_every_point(
    small_network: nn.Module, small_images: Tensor, labels: Tensor
):
    settings = TrainingSettings(epochs=1, batch_size=8, learning_rate=0.05)
    space = SearchSpace(recipes=("w4a8",), groups=(), prunings=(), accelerators=("edge",))
    found = explore(
        small_network,
        small_images,
        space,
        test=(small_images, labels),
        trials=1,
        training=settings,
        training_data=(small_images, labels),
    )
    (point,) = found.trials
    assert point.training == settings
    lesson = (settings, (small_images, labels))
    trained = Evaluator(small_network, small_images, (small_images, labels), lesson)
    plain = Evaluator(small_network, small_images, (small_images, labels))
    assert trained.program(point.point).content_hash() == point.figures().program_sha256
    assert plain.program(point.point).content_hash() != point.figures().program_sha256


def test_an_exploration_survives_its_file(found: Exploration, tmp_path):
    found.save(tmp_path / "found.json")
    assert Exploration.load(tmp_path / "found.json") == found
    assert str(found.front().points[0].number) in str(found)
    assert found.trial(3) == found.trials[3]
    with pytest.raises(UsageError, match="no finished trial 99"):
        found.trial(99)


def test_the_picture_is_the_same_in_every_run(found: Exploration, tmp_path):
    identity = found.identity.model_copy(update={"objectives": ("accuracy", "cycles")})
    drawn = found.model_copy(update={"identity": identity})
    for name in ("a.svg", "b.svg", "c.png"):
        save_front_picture(drawn, tmp_path / name)
    first = (tmp_path / "a.svg").read_bytes()
    assert first == (tmp_path / "b.svg").read_bytes()
    assert b"<!-- w4a4 -->" in first
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="change the ending"):
        save_front_picture(found, tmp_path / "front.html")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"trials": 0}, UsageError, "at least 1"),
        ({"trials": True}, UsageError, "whole number"),
        ({"objectives": ()}, UsageError, "some of"),
        ({"pruner": optuna.pruners.MedianPruner()}, UsageError, "one objective"),
        ({"training": TrainingSettings(epochs=1)}, UsageError, "both training and"),
        ({"test": torch.zeros(2, 3, 12, 12)}, DataError, "no labels"),
        ({"test": (torch.zeros(2, 3, 12, 12), torch.tensor([0, 9]))}, DataError, "0 to 9"),
        (
            {"space": SearchSpace(groups=(LayerGroup(name="a", match="headd"),))},
            RecipeError,
            "'headd' matches nothing; closest names: head",
        ),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(
    small_network: nn.Module, small_images: Tensor, arguments: dict, error: type, message: str
):
    right = (small_images, torch.zeros(16).long())
    with pytest.raises(error, match=message):
        explore(small_network, small_images, **({"test": right, "trials": 1} | arguments))
