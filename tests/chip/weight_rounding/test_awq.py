"""Scaling salient channels keeps the float result, and never loses more to rounding."""

import pytest
import torch
import torch.nn.functional as F
from tests.chip.conversion.flow import assert_engines_agree
from torch import Tensor, nn

from photomask.chip import PreparedModel, Recipe, calibrate, convert, load_target, prepare
from photomask.chip.graph import FloatGraph
from photomask.chip.quantizers import PerChannel, Quantizer
from photomask.chip.weight_rounding import scale_salient_channels
from photomask.errors import DataError, UsageError

RECIPE = Recipe(
    weight=Quantizer(4, granularity=PerChannel(), narrow=True),
    activation=Quantizer(12, symmetric=False),
)


class Block(nn.Module):
    """A norm with a few large channels that two layers read; a third reads one of them."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(96)
        self.first = nn.Linear(96, 16)
        self.second = nn.Linear(96, 16)
        self.third = nn.Linear(16, 4)
        with torch.no_grad():
            self.norm.weight[:3] = 25.0
            self.first.weight.normal_()
            self.second.weight.normal_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.third(torch.relu(self.first(x))) + self.second(x).mean(dim=-1, keepdim=True)


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 24, 3), nn.Conv2d(24, 6, 3, padding=1)
        with torch.no_grad():
            self.first.weight[:2] *= 20
            self.second.weight.normal_()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


CASES = [(Block, (5, 96), 2), (Images, (3, 9, 9), 1)]


def in_float(prepared: PreparedModel, x: Tensor) -> Tensor:
    graph = prepared.graph
    constants = {
        name: prepared.constants_of(node)[role].detach().double()
        for node in graph.nodes
        for role, name in node.constants.items()
    }
    return FloatGraph(graph.nodes, graph.outputs, constants)(x.double())[0]


@pytest.mark.parametrize(("model", "shape", "count"), CASES)
def test_the_float_result_stays_and_rounding_loses_less(
    model: type[nn.Module], shape: tuple[int, ...], count: int
):
    network, x = model().eval(), torch.randn(24, *shape)
    prepared = prepare(network, RECIPE, x[:1])
    expected = in_float(prepared, x)
    report = scale_salient_channels(prepared, x)
    assert len(report.places) == count
    assert all(place.after <= place.before for place in report.places)
    large = report.places[0]
    assert large.strength > 0
    assert large.after < 0.8 * large.before
    # Weights are stored in float32: one rounding each for the factor and its inverse.
    assert torch.allclose(in_float(prepared, x), expected, rtol=1e-5, atol=1e-5)
    calibrate(prepared, x)
    assert_engines_agree(convert(prepared, load_target("asic")), [x])
    assert "strength" in str(report)


def test_the_reported_error_is_that_of_the_readers_outputs():
    network, x = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 8)).eval(), torch.randn(24, 32)
    prepared = prepare(network, RECIPE, x[:1])
    norm, linear = prepared.graph.nodes[1:]
    (place,) = scale_salient_channels(prepared, x).places
    constants, weight = prepared.constants_of(norm), prepared.constants_of(linear)["weight"]
    quantizer = Quantizer(4, granularity=PerChannel(), narrow=True)
    quantizer.observe(weight)
    quantizer.fit()
    normed = F.layer_norm(x, (32,), constants["gain"], constants["bias"]).double()
    error = (normed @ (weight - quantizer(weight)).double().T).square().sum()
    assert place.after == pytest.approx(float(error.detach()), rel=1e-4)  # both computed in float32


def test_bad_requests_are_refused():
    x = torch.randn(4, 5, 96)
    prepared = prepare(Block().eval(), RECIPE, x[:1])
    with pytest.raises(DataError, match="at least one sample"):
        scale_salient_channels(prepared, [])
    with pytest.raises(UsageError, match="steps must be at least 1"):
        scale_salient_channels(prepared, x, steps=0)
