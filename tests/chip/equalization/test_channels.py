"""Rewrites of weights keep the float result, and make integers better where they promise to."""

import pytest
import torch
from tests.chip.conversion.flow import signal_to_noise
from torch import Tensor, nn

from photomask.chip import calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.equalization import correct_biases, equalize, smooth
from photomask.chip.graph.float_graph import largest_difference
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import PerTensor, Quantizer
from photomask.chip.recipe import Recipe
from photomask.errors import DataError


class Block(nn.Module):
    """A norm with two huge channels that two layers read."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.first = nn.Linear(16, 8)
        self.second = nn.Linear(16, 8)
        with torch.no_grad():
            self.norm.weight[:2] = 60.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.first(x) + self.second(x)


class Uneven(nn.Module):
    """Two convolutions whose channels differ in range by a factor of a thousand."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3)
        factor = torch.logspace(-1.5, 1.5, 16)
        with torch.no_grad():
            self.first.weight.mul_(factor.reshape(-1, 1, 1, 1))
            self.first.bias.mul_(factor)
            self.second.weight.div_(factor.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def decibels(model: nn.Module, prepared: PreparedModel, x: Tensor) -> float:
    calibrate(prepared, x)
    return signal_to_noise(model, [x], convert(prepared, load_target("asic")))


def in_float(prepared: PreparedModel, x: Tensor) -> list[Tensor]:
    constants = {key: prepared.weights[key.replace(".", "/")] for key in prepared.graph.constants}
    graph = prepared.graph
    with torch.no_grad():
        return list(type(graph)(graph.nodes, graph.outputs, constants)(x))


def test_smoothing_keeps_the_result_and_helps_activations_with_large_channels():
    model, x = Block().eval(), torch.randn(64, 5, 16)
    recipe = load_recipe("w8a8-minmax")
    plain, smoothed = (prepare(model, recipe, x[:1]) for _ in range(2))
    assert smooth(smoothed, x) == 1
    with torch.no_grad():
        assert largest_difference(in_float(smoothed, x), [model(x)]) < 1e-5
    before = plain.graph.constants["norm.gain"].abs().max()
    assert smoothed.weights["norm/gain"].abs().max() < before / 4
    assert decibels(model, smoothed, x) > decibels(model, plain, x) + 3


def test_equalizing_keeps_the_result_and_helps_weights_with_one_scale():
    model, x = Uneven().eval(), torch.randn(32, 3, 9, 9)
    recipe = Recipe(name="one scale", weight=Quantizer(8, granularity=PerTensor(), narrow=True))
    plain, equal = (prepare(model, recipe, x[:1]) for _ in range(2))
    assert equalize(equal) == 1
    with torch.no_grad():
        assert largest_difference(in_float(equal, x), [model(x)]) < 1e-5
    assert decibels(model, equal, x) > decibels(model, plain, x) + 10


def test_a_clamp_above_lets_no_factor_pass():
    class Six(Uneven):
        def forward(self, x: Tensor) -> Tensor:
            return self.second(nn.functional.relu6(self.first(x)))

    prepared = prepare(Six().eval(), load_recipe("w8a8"), torch.randn(1, 3, 9, 9))
    assert equalize(prepared) == 0


def test_a_channel_that_others_read_is_left_alone():
    class Read(Uneven):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            middle = torch.relu(self.first(x))
            return self.second(middle), middle

    prepared = prepare(Read().eval(), load_recipe("w8a8"), torch.randn(1, 3, 9, 9))
    assert equalize(prepared) == 0


def test_corrected_biases_take_the_mean_error_of_rounded_weights_back():
    model, x = nn.Linear(64, 8).eval(), torch.rand(512, 64) + 1.0
    recipe = Recipe(name="coarse", weight=Quantizer(3, granularity=PerTensor(), narrow=True))
    prepared = prepare(model, recipe, x[:1])
    assert correct_biases(prepared, x) == 1
    calibrate(prepared, x)
    with torch.no_grad():
        errors = (prepared(x)[0] - model(x)).mean(dim=0)
    uncorrected = prepare(model, recipe, x[:1])
    calibrate(uncorrected, x)
    with torch.no_grad():
        before = (uncorrected(x)[0] - model(x)).mean(dim=0)
    assert errors.abs().max() < before.abs().max() / 10


@pytest.mark.parametrize("rewrite", [smooth, correct_biases])
def test_no_data_is_refused(rewrite):
    prepared = prepare(Block().eval(), load_recipe("w8a8"), torch.randn(1, 5, 16))
    with pytest.raises(DataError, match="at least one sample"):
        rewrite(prepared, [])


def test_a_shift_centres_channels_and_keeps_the_float_result():
    model, x = Block().eval(), torch.randn(64, 5, 16)
    with torch.no_grad():
        model.norm.bias[:4] = torch.tensor([300.0, -80.0, 9.0, 5.0])
    prepared = prepare(model, load_recipe("w8a8-minmax"), x[:1])
    before = in_float(prepared, x)
    smooth(prepared, x, shift=True)
    assert largest_difference(in_float(prepared, x), before) < 1e-4
    plain = prepare(model, load_recipe("w8a8-minmax"), x[:1])
    smooth(plain, x)
    assert decibels(model, prepared, x) > decibels(model, plain, x) + 1
    with torch.no_grad():
        for node, value in prepared.graph.run([x], prepared.constants_of):
            if node.operation.kind == "normalize":
                middle = (value.flatten(0, 1).amax(dim=0) + value.flatten(0, 1).amin(dim=0)) / 2
                assert float(middle.abs().max()) < 1e-4 * float(value.abs().max())
