"""Scales that change along a sum are refused with node, line, axis and the sum."""

import pytest
import torch
from torch import Tensor, nn

from photomask.chip import Quantizer, Recipe, Rule, calibrate, convert, load_target, prepare
from photomask.chip.graph import FloatGraph, capture, simplify
from photomask.chip.graph.scales import sums_along
from photomask.chip.quantizers import PerChannel
from photomask.errors import RecipeError, TargetError

EXAMPLE = torch.zeros(1, 5, 6)


class Attention(nn.Module):
    """Weights of the attention times its values, which lie heads first."""

    def __init__(self):
        super().__init__()
        self.key = nn.Linear(6, 6)
        self.value = nn.Linear(6, 6)
        self.output = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = (x @ self.key(x).transpose(1, 2)).softmax(dim=-1)
        return self.output(weights @ self.value(x))


class Depthwise(nn.Module):
    """A product with a filter for each channel, then one over all of them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


class Dynamic(Quantizer):
    """A scale that follows from each input."""

    has_static_scale = False

    def forward(self, x: Tensor) -> Tensor:
        step = x.abs().amax() / 127
        return (x / step).round() * step


def per(axis: int) -> Quantizer:
    return Quantizer(8, granularity=PerChannel(axis))


def kinds(graph: FloatGraph, name: str, axis: int) -> list[str]:
    return [node.operation.kind for node in sums_along(graph, name, axis)]


def test_sums_along_an_axis_are_found_through_permutations():
    graph = simplify(capture(Attention().eval(), EXAMPLE))
    assert kinds(graph, "value", 1) == kinds(graph, "value", -2) == ["matmul"]
    assert kinds(graph, "value", 2) == []
    assert kinds(graph, "key", 2) == ["matmul"]  # transposed, so its features are summed over
    assert kinds(graph, "key", 1) == []
    assert kinds(graph, "value", 5) == []


def test_a_depthwise_convolution_sums_over_its_window_alone():
    graph = simplify(capture(Depthwise().eval(), torch.zeros(1, 2, 6, 6)))
    assert kinds(graph, "first", 1) == []
    assert kinds(graph, "first", 2) == ["convolution"]


def test_values_with_a_scale_for_each_token_are_refused_with_the_product():
    recipe = Recipe(rules=(Rule("value", activation=per(1)),))
    with pytest.raises(RecipeError) as found:
        prepare(Attention().eval(), recipe, EXAMPLE)
    message = str(found.value)
    assert message.startswith("rule 'value': output of 'value' (")
    assert "axis 1 of [1, 5, 6] cannot be factored out of the sum of matmul 'matmul" in message
    assert message.count("test_scales.py:") == 2  # the line of the values and that of the product
    assert "Quantize it per tensor" in message


def test_scales_that_no_step_knows_are_refused_too():
    rule = Rule("value", activation=per(2))
    with pytest.raises(RecipeError, match=r"axis 2 .*activations have one scale"):
        prepare(Attention().eval(), Recipe(rules=(rule,)), EXAMPLE)
    with pytest.raises(RecipeError, match=r"recipe 'tokens': output of 'x'"):
        prepare(Attention().eval(), Recipe(name="tokens", activation=per(1)), EXAMPLE)


def test_scales_that_follow_from_the_data_are_refused_with_node_and_line():
    prepared = prepare(
        Attention().eval(), Recipe(rules=(Rule("value", None, Dynamic(8)),)), EXAMPLE
    )
    calibrate(prepared, torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(TargetError, match=r"output of 'value' in Dynamic, per tensor \(.*\.py:\d+"):
        convert(prepared, load_target("asic"))
