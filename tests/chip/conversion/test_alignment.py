"""Aligned scales: the program rescales by the very ratios of the prepared model."""

import copy
from dataclasses import replace

import pytest
import torch
from tests.chip.conversion.flow import randomize
from torch import Tensor, nn

from photomask.chip import (
    PreparedModel,
    Quantizer,
    Recipe,
    Target,
    TorchEngine,
    align_to_target,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.quantizers import LSQ, LSQPlus, PerChannel, PerGroup
from photomask.chip.target import Rounding

ASIC = load_target("asic")
FEW_BITS = Target(name="few", multiplier_bits=8)
EXACT = 2.0**-22
"""What float32 scales leave of a relative error: a ratio is of three of them."""


class Residual(nn.Module):
    """Layers, a copy of few bits, a sum, a mean and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.second(self.first(x).relu())).relu()
        return self.head(x.mean((2, 3)))


class Pooled(nn.Module):
    """Averages over windows, padded and adaptive ones, and a function that a sum reads."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.side = nn.Conv2d(2, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.silu(self.stem(x)) + self.side(x)
        y = nn.functional.avg_pool2d(y, 3, stride=1, padding=1)
        return self.head(nn.functional.adaptive_avg_pool2d(y, 3)).flatten(1)


class Attention(nn.Module):
    """A norm, products of activations, a softmax and a sum."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.inward = nn.Linear(8, 24)
        self.outward = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inward(self.norm(x)).chunk(3, dim=-1)
        return x + self.outward((q @ k.transpose(1, 2) * 0.3).softmax(-1) @ v)


def case(kind: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    shape = (64, 2, 9, 9) if kind in (Residual, Pooled) else (64, 7, 8)
    return randomize(kind()), torch.randn(*shape)


def prepared_model(kind: type[nn.Module], recipe: Recipe) -> tuple[PreparedModel, Tensor]:
    model, x = case(kind)
    prepared = prepare(model, recipe, x[:1])
    calibrate(prepared, x)
    return prepared, x


def codes(prepared: PreparedModel, target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the output's codes as the model in float64 and as the program compute them."""
    program = convert(prepared, target)
    name = program.outputs[0]
    quantizer = prepared.activation_quantizer(name)
    with torch.no_grad():
        value = copy.deepcopy(prepared).double()(x.double())[0]
        expected = (value / quantizer.scale.double()).round() + quantizer.zero_point
    engine = TorchEngine(program)
    return expected, engine.run({program.inputs[0]: program.quantize_input(x)})[name].double()


@pytest.mark.parametrize("kind", [Residual, Attention])
@pytest.mark.parametrize("recipe", ["w8a8", "w4a8"])
@pytest.mark.parametrize("target", [ASIC, FEW_BITS], ids=lambda target: target.name)
def test_every_ratio_is_one_of_the_target(kind: type[nn.Module], recipe: str, target: Target):
    prepared, _ = prepared_model(kind, load_recipe(recipe))
    before = [step.relative_error for step in convert(prepared, target).steps]
    align_to_target(prepared, target)
    after = [step.relative_error for step in convert(prepared, target).steps]
    assert max(before) > 16 * EXACT
    assert max(after) < EXACT


def test_the_program_computes_the_codes_of_the_model():
    # An output of 16 bits would see the rounding of float32 scales.
    recipe = replace(load_recipe("w4a4"), output_bits=8)
    prepared, x = prepared_model(Residual, recipe)
    expected, found = codes(prepared, ASIC, x)
    assert (expected != found).any()
    align_to_target(prepared, ASIC)
    expected, found = codes(prepared, ASIC, x)
    assert torch.equal(expected, found)


def test_scales_move_by_no_more_than_a_multiplier_is_rounded():
    prepared, _ = prepared_model(Residual, load_recipe("w8a8"))
    before = {name: value.clone() for name, value in prepared.state_dict().items()}
    align_to_target(prepared, ASIC)
    moved = 0
    for name, value in prepared.state_dict().items():
        if not name.endswith(".scale"):
            assert torch.equal(value, before[name]), name
            continue
        change = (value.double() / before[name].double() - 1).abs().max()
        # An input of a sum is aligned by a coefficient that has fewer bits than the other's.
        limit = 2.0**-10 if "second" in name and "activation" in name else 2.0**-15
        assert change < limit, name
        moved += int(change > 0)
    assert moved > 6


def test_what_shares_a_scale_still_shares_it():
    model, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2)), torch.randn
    prepared = prepare(model.eval(), load_recipe("w8a8"), x(1, 2, 8, 8))
    calibrate(prepared, x(8, 2, 8, 8))
    align_to_target(prepared, ASIC)
    assert max(step.relative_error for step in convert(prepared, ASIC).steps) < EXACT


def test_learned_scales_are_aligned_too():
    recipe = Recipe(
        weight=LSQ(4, granularity=PerChannel(), narrow=True),
        activation=LSQPlus(4, symmetric=False),
    )
    prepared, _ = prepared_model(Residual, recipe)
    align_to_target(prepared, ASIC)
    assert max(step.relative_error for step in convert(prepared, ASIC).steps) < EXACT


def test_groups_and_powers_of_two_stay_as_they_are():
    for weight, target in (
        (Quantizer(8, power_of_two=True, narrow=True), load_target("max78000")),
        (Quantizer(4, granularity=PerGroup(2)), ASIC),
    ):
        activation = Quantizer(8, power_of_two=True, signed=True)
        prepared, _ = prepared_model(Residual, Recipe(weight=weight, activation=activation))
        before = {name: value.clone() for name, value in prepared.state_dict().items()}
        align_to_target(prepared, target)
        for name, value in prepared.state_dict().items():
            assert torch.equal(value, before[name]), name


class Masked(Attention):
    """A causal attention behind a root-mean-square norm, with a function of one number."""

    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(8, eps=1e-5)
        self.register_buffer("causal", torch.ones(7, 7).tril() > 0)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inward(self.norm(x)).chunk(3, dim=-1)
        shown = nn.functional.scaled_dot_product_attention(q, k, v, self.causal)
        return x + nn.functional.gelu(self.outward(shown))


class Positions(nn.Module):
    """A class token joined to what a layer makes of others, and positions that are added."""

    def __init__(self):
        super().__init__()
        self.inward, self.head = nn.Linear(8, 8), nn.Linear(8, 5)
        self.token = nn.Parameter(3 * torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.token.expand(len(x), -1, -1), self.inward(x)], dim=1)
        return self.head(joined + self.positions)


TARGETS = [
    ASIC,
    FEW_BITS,
    Target(name="away", rounding=Rounding.HALF_AWAY, multiplier_bits=12),
    Target(name="narrow", accumulator_bits=26, bias_bits=26),
]


@pytest.mark.parametrize("kind", [Residual, Pooled, Attention, Masked, Positions])
@pytest.mark.parametrize("recipe", ["w8a8", "w4a8", "w4a4"])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_in_float64_not_one_integer_of_any_edge_differs(
    kind: type[nn.Module], recipe: str, target: Target
):
    prepared, x = prepared_model(kind, load_recipe(recipe))
    align_to_target(prepared.double(), target)
    program = convert(prepared, target)
    found = dict(TorchEngine(program).edges({program.inputs[0]: program.quantize_input(x)}))
    compared = 0
    with torch.no_grad():
        values = {prepared.graph.inputs[0]: x.double()}
        for node in prepared.eval().graph.nodes:
            if node.name not in values:
                values[node.name] = prepared.compute(node, [values[name] for name in node.inputs])
            values[node.name] = prepared.settle(node, values[node.name])
            if node.name in found:
                quantizer = prepared.activation_quantizer(node.name)
                expected = (values[node.name] / quantizer.scale).round() + quantizer.zero_point
                assert torch.equal(expected, found[node.name].double()), node.name
                compared += expected.numel()
    assert compared > 10_000


def test_without_a_target_or_float64_halves_stay_with_the_quantizer():
    prepared, _ = prepared_model(Residual, load_recipe("w8a8"))
    prepared = prepared.double().eval()
    node = prepared.graph.by_name["first"]
    step = prepared.activation_quantizer("first").scale
    half = 2.5 * step.reshape(1)
    assert prepared.settle(node, half).item() == pytest.approx(2 * step.item())
    prepared.target = ASIC
    assert prepared.settle(node, half).item() == pytest.approx(3 * step.item())
    assert prepared.train().settle(node, half).item() == pytest.approx(2 * step.item())
