import copy
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.chip.reconstruction.networks import Inverted, Shared, Transformer
from torch import Tensor, nn

from photomask.chip import (
    NumpyEngine,
    PreparedModel,
    Recipe,
    Rule,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.equalization import smooth
from photomask.chip.observers import MSE
from photomask.chip.quantizers import AdaRound, PerChannel, PowerOfTwoFactors, Quantizer
from photomask.chip.reconstruction import ReconstructionSettings, reconstruct
from photomask.chip.reconstruction import reconstructing as module
from photomask.errors import DataError, DocumentError, QuantizerError, UsageError
from photomask.report import NoiseMeter

QUICK = ReconstructionSettings(iterations=25, batch_size=8, rounding_rate=0.2)
W3A8 = Recipe(
    name="w3a8",
    weight=Quantizer(3, granularity=PerChannel(), observer=MSE(), narrow=True),
    activation=Quantizer(8, symmetric=False),
)


def prepared_of(model: nn.Module, data: Tensor, recipe: Recipe | str = W3A8) -> PreparedModel:
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    prepared = prepare(model.eval(), recipe, data[:1])
    calibrate(prepared, data)
    return prepared


def sqnr_of(prepared: PreparedModel, data: Tensor) -> float:
    meter = NoiseMeter()
    with torch.no_grad():
        for expected, found in zip(prepared.graph(data), prepared.eval()(data), strict=True):
            meter.add(expected, found)
    return meter.sqnr_db


def same(a: PreparedModel, b: PreparedModel) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture
def fresh(small_network: nn.Module, small_images: Tensor) -> PreparedModel:
    return prepared_of(small_network, small_images)


@pytest.mark.parametrize("granularity", ["layer", "block", "network"])
def test_it_brings_the_outputs_closer_and_reports_the_hard_ones(fresh, small_images, granularity):
    before = sqnr_of(fresh, small_images)
    settings = QUICK.model_copy(update={"granularity": granularity})
    report = reconstruct(fresh, small_images, settings=settings)
    after = sqnr_of(fresh, small_images)
    assert after > before + 2
    assert report.sqnr_before_db == pytest.approx(before, abs=1e-3)
    assert report.sqnr_after_db == pytest.approx(after, abs=1e-3)
    assert all(block.sqnr_after_db >= block.sqnr_before_db for block in report.blocks)
    assert "whole network" in str(report)


@pytest.mark.parametrize("recipe", ["w4a8", "w4a8-group", "w8a8-po2", "w8a8-signed"])
def test_convert_finds_exactly_the_codes_that_were_learned(small_network, small_images, recipe):
    prepared = prepared_of(small_network, small_images, recipe)
    formats = {node.name: prepared.activation_quantizer(node.name).format for node in
               prepared.graph.nodes if node.operation.decides_scale}  # fmt: skip
    report = reconstruct(prepared, small_images, settings=QUICK)
    kept = {block.name for block in report.blocks if block.kept}
    assert kept
    program = convert(prepared, load_target("asic"))
    codes = program.quantize_input(small_images)
    engine = NumpyEngine(program)
    output = engine.run({program.inputs[0]: np.asarray(codes)})[program.outputs[0]]
    real = program.edges[program.outputs[0]].dequantize(torch.from_numpy(output))
    with torch.no_grad():
        (expected,) = prepared(small_images)
    assert float((real - expected).norm() / expected.norm()) < 0.02
    for node in prepared.graph.nodes:
        if node.operation.decides_scale:
            assert prepared.activation_quantizer(node.name).format == formats[node.name]
        if "weight" in node.constants:
            weight = prepared.constants_of(node)["weight"].detach()
            quantizer = prepared.weight_quantizer(node.name)
            assert type(quantizer) is Quantizer
            assert torch.equal(quantizer(weight), weight) == (node.name in kept)


def test_scales_that_are_powers_of_two_stay_so(small_network, small_images):
    prepared = prepared_of(small_network, small_images, "w8a8-po2")
    scales = {k: v.clone() for k, v in prepared.state_dict().items() if k.endswith(".scale")}
    report = reconstruct(prepared, small_images, settings=QUICK)
    assert {block.scales for block in report.blocks} == {0}
    assert all(torch.equal(prepared.state_dict()[key], scale) for key, scale in scales.items())


def test_a_transformer_is_reconstructed():
    data = torch.randn(16, 6, 4)
    prepared = prepared_of(Transformer(), data, W3A8)
    report = reconstruct(prepared, data, settings=QUICK)
    assert report.sqnr_after_db > report.sqnr_before_db + 1


def test_activations_with_a_factor_a_channel_keep_their_scales():
    data = torch.randn(16, 6, 4)
    factors = PowerOfTwoFactors(8)
    recipe = Recipe(weight=W3A8.weight, rules=(Rule("re:.*add.*", activation=factors),))
    prepared = prepare(Transformer().eval(), recipe, data[:1])
    calibrate(prepared, data)
    report = reconstruct(prepared, data, settings=QUICK)
    assert report.sqnr_after_db > report.sqnr_before_db


def test_a_smoothed_model_is_reconstructed_towards_its_own_edges():
    data = torch.randn(16, 6, 4)
    prepared = prepare(Transformer().eval(), W3A8, data[:1])
    assert smooth(prepared, data) == 4
    calibrate(prepared, data)
    report = reconstruct(prepared, data, settings=QUICK)
    assert all(block.sqnr_before_db > 0 for block in report.blocks)
    assert sqnr_of(prepared, data) == pytest.approx(report.sqnr_after_db, abs=1e-3)


def test_batch_norms_beside_their_layers_are_refused(fresh, small_images):
    fresh.batch_norms["stem/0"] = nn.Identity()
    with pytest.raises(UsageError, match=r"keeps 1 batch norms .* fold_batch_norms"):
        reconstruct(fresh, small_images)


def test_the_float_model_stays_what_it_was(fresh, small_images):
    constants = {name: t.clone() for name, t in fresh.graph.constants.items()}
    reconstruct(fresh, small_images, settings=QUICK)
    assert all(torch.equal(fresh.graph.constants[name], t) for name, t in constants.items())


def test_zeros_of_a_sparse_weight_stay_zeros(small_network, small_images):
    model = copy.deepcopy(small_network)
    weight = model.body[0].weight.data
    weight[weight.abs() < weight.abs().median()] = 0
    zero = weight == 0
    prepared = prepared_of(model, small_images, "w4a8")
    reconstruct(prepared, small_images, settings=QUICK)
    node = prepared.graph.by_name["body.0"]
    assert not prepared.constants_of(node)["weight"][zero].any()


def test_a_weight_of_several_layers_is_learned_where_it_comes_first():
    data = torch.randn(16, 4)
    prepared = prepared_of(Shared(), data)
    report = reconstruct(prepared, data, settings=QUICK)
    assert [block.weights for block in report.blocks] == [16, 0, 16]
    assert sqnr_of(prepared, data) == pytest.approx(report.sqnr_after_db, abs=1e-3)


def test_the_same_seed_gives_the_same_model_and_another_another(small_network, small_images):
    models = []
    for seed in (1, 1, 2):
        models.append(prepared_of(small_network, small_images))
        settings = QUICK.model_copy(update={"seed": seed})
        reconstruct(models[-1], small_images, settings=settings)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_it_comes_back_in_the_mode_it_was_in(fresh, small_images):
    reconstruct(fresh.train(), small_images, settings=QUICK)
    assert fresh.training


def test_a_recipe_may_ask_for_adaround(small_network, small_images):
    recipe = Recipe(
        rules=(Rule("body.0", weight=AdaRound(3, granularity=PerChannel(), observer=MSE())),)
    )
    prepared = prepared_of(small_network, small_images, recipe)
    assert reconstruct(prepared, small_images, settings=QUICK).blocks[1].kept
    weight = prepared.weights["body/0/weight"].detach()
    assert torch.equal(prepared.weight_quantizer("body.0").eval()(weight), weight)


class Stopped(Exception):
    pass


def stopping_at(block: int):
    """A progress that is killed in the middle of a block."""
    seen = []

    def progress(items: Sequence, label: str):
        seen.append(label)
        for index, item in enumerate(items):
            if len(seen) > block and index == 10:
                raise Stopped
            yield item

    return progress


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_result(
    small_network, small_images, tmp_path
):
    whole = prepared_of(small_network, small_images)
    expected = reconstruct(whole, small_images, settings=QUICK)
    folder = tmp_path / "run"
    killed = prepared_of(small_network, small_images)
    with pytest.raises(Stopped):
        reconstruct(
            killed, small_images, settings=QUICK, checkpoint=folder, progress=stopping_at(2)
        )
    assert len(list(folder.glob("block-*"))) == 2
    labels = []
    resumed = prepared_of(small_network, small_images)
    report = reconstruct(
        resumed,
        small_images,
        settings=QUICK,
        checkpoint=folder,
        progress=lambda items, label: labels.append(label) or items,
    )
    assert labels == ["head (3 of 3)"]
    assert same(resumed, whole)
    assert report == expected


@pytest.fixture(scope="module")
def finished(small_network, small_images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reconstruction") / "run"
    settings = QUICK.model_copy(update={"iterations": 2})
    reconstruct(
        prepared_of(small_network, small_images), small_images, settings=settings, checkpoint=folder
    )
    return folder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("settings", r"iterations 2 \(now 3\); seed 0 \(now 5\)\."),
        ("data", r"differs in: weights or calibrated scales of the model; data\."),
        ("recipe", r"differs in: recipe; weights or calibrated scales of the model\."),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    finished, small_network, small_images, change, named
):
    settings = QUICK.model_copy(update={"iterations": 2})
    recipe, data = W3A8, small_images
    if change == "settings":
        settings = settings.model_copy(update={"iterations": 3, "seed": 5})
    elif change == "data":
        data = small_images + 1
    else:
        recipe = "w4a8"
    prepared = prepared_of(small_network, data, recipe)
    state = copy.deepcopy(prepared)
    with pytest.raises(UsageError, match=named):
        reconstruct(prepared, data, settings=settings, checkpoint=finished)
    assert same(prepared, state)


def test_a_damaged_block_is_refused_by_name(finished, fresh, small_images, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    path = folder / "block-0001.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    settings = QUICK.model_copy(update={"iterations": 2})
    with pytest.raises(DocumentError, match=r"block-0001\.safetensors is damaged"):
        reconstruct(fresh, small_images, settings=settings, checkpoint=folder)


def test_a_folder_that_holds_something_else_is_refused(fresh, small_images, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="is not empty and holds no checkpoint"):
        reconstruct(fresh, small_images, settings=QUICK, checkpoint=tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        reconstruct(fresh, small_images, settings=QUICK, checkpoint=tmp_path / "letter.txt")


def test_divergence_names_block_and_step_and_keeps_what_was_good(
    small_network, small_images, monkeypatch
):
    good = prepared_of(small_network, small_images)
    reconstruct(good, small_images, settings=QUICK)
    prepared = prepared_of(small_network, small_images)
    start = {k: v.clone() for k, v in prepared.state_dict().items()}
    optimize = module.optimize

    def diverge(learner, *arguments):
        if learner.block.name == "body.0":
            learner.units = {name: unit * torch.inf for name, unit in learner.units.items()}
        optimize(learner, *arguments)

    monkeypatch.setattr(module, "optimize", diverge)
    with pytest.raises(QuantizerError, match=r"block 'body.0' diverged: .* not finite at step 0\."):
        reconstruct(prepared, small_images, settings=QUICK)
    state = prepared.state_dict()
    assert torch.equal(state["weights.stem/0/weight"], good.state_dict()["weights.stem/0/weight"])
    for key in ("weights.body/0/weight", "weights.head/weight"):
        assert torch.equal(state[key], start[key])


def test_a_block_that_comes_out_worse_is_left_as_it_was(fresh, small_images, monkeypatch):
    def spoil(learner, *_):
        for rounding in learner.roundings.values():
            rounding.shift.data.fill_(-10)

    monkeypatch.setattr(module, "optimize", spoil)
    start = copy.deepcopy(fresh)
    report = reconstruct(fresh, small_images, settings=QUICK)
    assert same(fresh, start)
    assert not any(block.kept or block.changed for block in report.blocks)
    assert report.sqnr_after_db == report.sqnr_before_db
    assert "left as it was" in str(report)


class Even(Quantizer):
    """Even codes only."""

    def quantize(self, x: Tensor) -> Tensor:
        codes = self.codes
        return ((x / self.scale / 2).round() * 2).clamp(codes.low + codes.low % 2, codes.high - 1)


def test_weights_whose_codes_are_not_uniform_are_refused_by_name(small_network, small_images):
    recipe = Recipe(rules=(Rule("head", weight=Even(4)), Rule("stem.0", weight=Even(6))))
    prepared = prepared_of(small_network, small_images, recipe)
    with pytest.raises(QuantizerError, match=r"not uniform: stem.0 \(Even\), head \(Even\)"):
        reconstruct(prepared, small_images, settings=QUICK)


def test_activations_that_are_not_uniform_take_part_with_the_scale_they_have(
    small_network, small_images
):
    recipe = Recipe(activation=Even(9, signed=True), weight=W3A8.weight)
    prepared = prepared_of(small_network, small_images, recipe)
    report = reconstruct(prepared, small_images, settings=QUICK)
    assert {block.scales for block in report.blocks} == {0}
    assert report.sqnr_after_db > report.sqnr_before_db


def test_a_model_that_was_not_calibrated_is_refused(small_network, small_images):
    prepared = prepare(small_network, load_recipe("w4a4"), small_images[:1])
    with pytest.raises(QuantizerError, match="was never calibrated"):
        reconstruct(prepared, small_images)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.randn(4, 3, 5, 5), r"has shape \[4, 3, 5, 5\], expected \[batch, 3, 12, 12\]"),
        (torch.full((4, 3, 12, 12), float("nan")), "NaN or infinity"),
        (torch.randn(0, 3, 12, 12), r"has shape \[0, 3, 12, 12\]"),
        ([], "at least one sample"),
    ],
)
def test_data_that_do_not_fit_are_refused(fresh, data, message):
    with pytest.raises(DataError, match=message):
        reconstruct(fresh, data)


def test_a_single_sample_is_enough(small_network, small_images):
    prepared = prepared_of(Inverted(), small_images[:, :, :8, :8])
    reconstruct(prepared, small_images[:1, :, :8, :8], settings=QUICK)
