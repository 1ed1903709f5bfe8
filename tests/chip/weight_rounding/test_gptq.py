"""Compensated roundings lose less of a layer's output than plain ones, and convert exactly."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chip.conversion.flow import assert_engines_agree
from torch import Tensor, nn

from photomask.chip import Recipe, calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.graph import Node
from photomask.chip.graph.operations import Convolution
from photomask.chip.observers import MSE
from photomask.chip.quantizers import PerChannel, PerGroup, PerTensor, Quantizer
from photomask.chip.weight_rounding import compensate_rounding
from photomask.chip.weight_rounding.gptq import best_codes, compensated_codes
from photomask.chip.weight_rounding.products import output_error, second_moments
from photomask.errors import DataError, QuantizerError, UsageError

FLOAT32 = 1e-6
"""Weights are stored as float32; a code times its scale is rounded once."""


def correlated(samples: int, size: int) -> Tensor:
    """Inputs that share a few factors, as those of real layers do."""
    factors = torch.randn(samples, max(1, size // 4)) @ torch.randn(max(1, size // 4), size)
    return factors + 0.1 * torch.randn(samples, size)


def recipe_with(granularity: PerTensor | PerChannel | PerGroup, bits: int = 3) -> Recipe:
    weight = Quantizer(bits, granularity=granularity, observer=MSE(), narrow=True)
    return Recipe(name="few bits", weight=weight, activation=Quantizer(12, symmetric=False))


def _all(weight: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(weight, dtype=torch.bool)


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(8)], ids=str)
def test_the_output_error_shrinks(granularity: PerTensor | PerChannel | PerGroup, sort: bool):
    """Measured on the layer's own quantized inputs, by multiplying them out."""
    model, x = nn.Linear(40, 24).eval(), correlated(200, 40)
    prepared = prepare(model, recipe_with(granularity), x[:1])
    calibrate(prepared, x)
    source, node = prepared.graph.nodes
    seen = prepared.activation_quantizer(source.name)(x).double()
    weight = prepared.constants_of(node)["weight"]
    original, plain = weight.detach().clone(), prepared.weight_quantizer(node.name)(weight).detach()
    (layer,) = compensate_rounding(prepared, x, sort=sort).layers

    def error(rounded: Tensor) -> Tensor:
        return (seen @ (original - rounded).double().T).square().sum(dim=0)

    assert bool((error(weight.detach()) <= error(plain) * (1 + FLOAT32)).all())
    assert layer.nearest == pytest.approx(float(error(plain).sum()), rel=FLOAT32)
    assert layer.compensated == pytest.approx(float(error(weight.detach()).sum()), rel=FLOAT32)
    assert layer.compensated < 0.6 * layer.nearest


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    outputs=st.integers(1, 6),
    size=st.integers(1, 40),
    samples=st.integers(1, 60),
    dead=st.booleans(),
)
def test_no_channel_is_worse_than_rounded_to_nearest(
    seed: int, outputs: int, size: int, samples: int, dead: bool
):
    torch.manual_seed(seed)
    x, weight = correlated(samples, size).double(), torch.randn(1, outputs, size).double()
    if dead:
        x[:, 0] = 0
    high = (1, 3, 7)[seed % 3]
    scale = weight.abs().amax(dim=2, keepdim=True).expand_as(weight) / (high + seed % 2)
    grid = (scale, torch.zeros_like(weight), -high, high)
    nearest = (weight / scale).round().clamp(-high, high)
    codes, *reported = best_codes(
        weight, nearest, (x.T @ x)[None], grid, _all(weight), damping=0.01, sort=seed % 5 > 0
    )
    assert torch.equal(codes, codes.round().clamp(-high, high))
    before, after = (
        (x @ (weight - found * scale)[0].T).square().sum(dim=0) for found in (nearest, codes)
    )
    slack = 1e-12 * x.square().sum() * weight[0].square().sum(dim=1)
    assert bool((after <= before + slack).all())
    for found, expected in zip(reported, (before, after), strict=True):
        assert bool(((found[0] - expected).abs() <= slack).all())


def one_by_one(weight: Tensor, moments: Tensor, scale: float, high: int) -> Tensor:
    """Optimal brain quantization with a fixed order, from its definition.

    After each weight is fixed, the others are set to their optimum: those that minimise the squared
    error of the output given the weights that are fixed already.
    """
    found, rest = torch.zeros_like(weight), weight.clone()
    size = weight.shape[-1]
    for j in range(size):
        value = (rest[:, j] / scale).round().clamp(-high, high) * scale
        found[:, j] = value
        free = list(range(j + 1, size))
        if free:
            fixed = list(range(j + 1))
            moved = (weight - found)[:, fixed] @ moments[fixed][:, free]
            rest[:, free] = weight[:, free] + torch.linalg.solve(moments[free][:, free], moved.T).T
    return found


def test_weights_to_come_take_their_optimum_given_those_that_are_fixed():
    torch.manual_seed(0)
    x = correlated(100, 12).double()
    weight, moments = torch.randn(5, 12, dtype=torch.float64), x.T @ x
    damped = moments + 0.01 * moments.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    expected = one_by_one(weight, damped, 0.5, 3)
    grid = (torch.full((1, 5, 12), 0.5).double(), torch.zeros(1, 5, 12).double(), -3, 3)
    codes = compensated_codes(
        weight[None], moments[None], grid, _all(weight[None]), damping=0.01, sort=False
    )
    assert torch.equal(codes[0] * 0.5, expected)


def test_blocks_of_inputs_change_nothing(monkeypatch: pytest.MonkeyPatch):
    x = correlated(300, 50).double()
    weight, moments = torch.randn(1, 7, 50, dtype=torch.float64), (x.T @ x)[None]
    grid = (torch.full_like(weight, 0.4), torch.zeros_like(weight), -3, 3)
    whole = compensated_codes(weight, moments, grid, _all(weight), damping=0.01, sort=True)
    monkeypatch.setattr("photomask.chip.weight_rounding.gptq.BLOCK", 8)
    assert torch.equal(
        compensated_codes(weight, moments, grid, _all(weight), damping=0.01, sort=True), whole
    )


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(6, 8, 3, stride=2, padding=1, dilation=2, groups=2), (6, 11, 9)),
        (nn.Conv2d(4, 4, (3, 2), padding=(1, 0), groups=4), (4, 7, 6)),
        (nn.Conv1d(3, 5, 4, stride=2, padding=2), (3, 17)),
    ],
)
def test_a_convolution_is_a_product_with_patches(module: nn.Module, shape: tuple[int, ...]):
    """`d' (sum x x') d` is the squared output of a convolution by `d`."""
    x, weight = torch.randn(9, *shape), module.weight.detach()
    operation = Convolution(
        stride=module.stride,
        padding=tuple((p, p) for p in module.padding),
        dilation=module.dilation,
        groups=module.groups,
    )
    moments = second_moments(Node("c", operation), x, weight.shape[2:])
    found = output_error(weight.reshape(module.groups, -1, moments.shape[-1]), moments)
    convolve = F.conv2d if weight.ndim == 4 else F.conv1d
    y = convolve(
        x.double(), weight.double(), None, module.stride, module.padding, module.dilation,
        module.groups,
    )  # fmt: skip
    others = [axis for axis in range(y.ndim) if axis != 1]
    assert torch.allclose(found.flatten(), y.square().sum(dim=others), rtol=1e-10)


def test_a_network_converts_exactly_and_has_less_noise(
    small_network: nn.Module, small_images: Tensor
):
    recipe = Recipe(
        name="w3",
        weight=Quantizer(3, granularity=PerChannel(), observer=MSE(), narrow=True),
        activation=load_recipe("w8a8").activation,
    )
    prepared = prepare(small_network, recipe, small_images[:1])
    calibrate(prepared, small_images)
    with torch.no_grad():
        y, plain = small_network(small_images), prepared(small_images)[0]
    report = compensate_rounding(prepared, small_images)
    assert "compensated" in str(report)
    assert len(report.layers) == 3
    with torch.no_grad():
        better = prepared(small_images)[0]
    assert (better - y).square().sum() < 0.7 * (plain - y).square().sum()
    program = convert(prepared, load_target("asic"))
    assert_engines_agree(program, [small_images])
    for step in program.steps:
        if "weight" in step.tensors:
            node = prepared.graph.by_name[step.node]
            weight = prepared.constants_of(node)["weight"].detach()
            quantizer = prepared.weight_quantizer(step.node)
            codes = program.tensors[step.tensors["weight"]]
            assert np.array_equal(codes, quantizer.quantize(weight).numpy())
            assert torch.equal(quantizer(weight), weight)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def test_a_shared_weight_is_rounded_once():
    x = correlated(64, 8)
    prepared = prepare(Tied().eval(), recipe_with(PerChannel()), x[:1])
    calibrate(prepared, x)
    names = {
        node.constants["weight"] for node in prepared.graph.nodes if "weight" in node.constants
    }
    assert len(compensate_rounding(prepared, x).layers) == len(names)
    assert_engines_agree(convert(prepared, load_target("asic")), [x])


class Doubling(Quantizer):
    """Even codes alone."""

    def quantize(self, x: Tensor) -> Tensor:
        return 2 * (super().quantize(x) / 2).round()


def test_what_cannot_be_compensated_is_refused():
    x = correlated(16, 4)
    prepared = prepare(nn.Linear(4, 3).eval(), recipe_with(PerChannel()), x[:1])
    with pytest.raises(QuantizerError, match="never calibrated"):
        compensate_rounding(prepared, x)
    calibrate(prepared, x)
    with pytest.raises(DataError, match="at least one sample"):
        compensate_rounding(prepared, [])
    with pytest.raises(UsageError, match="damping"):
        compensate_rounding(prepared, x, damping=0.0)
    own = Recipe(weight=Doubling(4, granularity=PerChannel()))
    prepared = prepare(nn.Linear(4, 3).eval(), own, x[:1])
    calibrate(prepared, x)
    with pytest.raises(QuantizerError, match="Doubling has a rounding of its own"):
        compensate_rounding(prepared, x)


@pytest.mark.parametrize("sort", [True, False])
def test_codes_are_computed_where_the_weights_are(sort: bool):
    """A tensor of the meta device refuses to meet one of the processor, as a GPU's does."""
    weight = torch.zeros(1, 3, 5, dtype=torch.float64, device="meta")
    moments = torch.zeros(1, 5, 5, dtype=torch.float64, device="meta")
    grid = (torch.ones_like(weight), torch.zeros_like(weight), -3, 3)
    codes = compensated_codes(weight, moments, grid, _all(weight), damping=0.01, sort=sort)
    assert codes.device == weight.device
    assert codes.shape == weight.shape
