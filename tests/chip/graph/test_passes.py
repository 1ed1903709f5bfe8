"""When each pass applies, when it does not, and that the graph computes the same."""

import math
import time

import pytest
import torch
import torch.nn.functional as F
from tests.chip.conversion.flow import Several, assert_captured, inputs_of, randomize
from torch import Tensor, nn

from photomask.chip.graph import FloatGraph, Node, capture, simplify
from photomask.chip.graph.operations import ChannelAffine, Clamp, Convolution, Input, Reshape


class Layer(nn.Module):
    """A convolution and a batch norm, for functions to call."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)


def simplified(forward, *, shape=(4, 5, 6)) -> FloatGraph:
    class Model(Layer):
        def forward(self, x: Tensor):
            return forward(self, x)

    return assert_captured(randomize(Model()), inputs_of(shape))


def kinds(graph: FloatGraph) -> list[str]:
    return [node.operation.kind for node in graph.nodes][1:]


def test_a_batch_norm_folds_into_its_convolution():
    assert kinds(simplified(lambda m, x: m.norm(m.conv(x)))) == ["convolution"]


def test_scales_and_offsets_of_channels_fold_too():
    offset = torch.linspace(-1, 1, 4).reshape(4, 1, 1)
    assert kinds(simplified(lambda m, x: m.conv(x) * offset + 0.5 * offset)) == ["convolution"]


def test_a_convolution_that_something_else_reads_is_not_folded():
    graph = simplified(lambda m, x: (m.norm(y := m.conv(x)), F.sigmoid(y)))
    assert sorted(kinds(graph)) == ["convolution", "convolution", "sigmoid"]
    graph = simplified(lambda m, x: m.conv(x) + m.norm(m.conv(x)))
    assert kinds(graph) == ["convolution", "convolution", "add"]


def test_a_convolution_that_is_an_output_is_not_folded():
    graph = simplified(lambda m, x: (y := m.conv(x), m.norm(y)))
    assert kinds(graph) == ["convolution", "convolution"]


def test_a_batch_norm_before_a_convolution_becomes_a_depthwise_convolution():
    graph = simplified(lambda m, x: m.conv(m.norm(x)))
    first = graph.nodes[1].operation
    assert isinstance(first, Convolution)
    assert first.groups == 4
    assert graph.constants[graph.nodes[1].constants["weight"]].shape == (4, 1, 1, 1)


def test_a_batch_norm_after_a_rectified_convolution_is_not_folded():
    graph = simplified(lambda m, x: m.norm(F.relu(m.conv(x))))
    assert kinds(graph) == ["convolution", "convolution"]
    assert graph.nodes[1].clamp == Clamp(0, math.inf)


def test_batch_norms_in_a_row_become_one():
    graph = simplified(lambda m, x: m.norm(m.norm(m.norm(x))))
    assert kinds(graph) == ["convolution"]


def test_a_batch_norm_of_vectors_is_widened_for_the_convolution():
    model = randomize(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(120)))
    graph = assert_captured(model, inputs_of((4, 5, 6)))
    assert kinds(graph) == ["reshape", "reshape", "convolution", "reshape"]


def test_a_clamp_with_a_producer_of_its_own_is_fused():
    graph = simplified(lambda m, x: F.relu(m.conv(x)) + F.relu6(m.conv(x) + x))
    assert kinds(graph) == ["convolution", "convolution", "add", "add"]
    clamps = [node.clamp for node in graph.nodes[1:]]
    assert clamps == [Clamp(0, math.inf), None, Clamp(0, 6), None]


def test_a_clamp_of_something_that_others_read_stays():
    graph = simplified(lambda m, x: F.relu(y := m.conv(x)) + y)
    assert kinds(graph) == ["convolution", "clamp", "add"]


def test_a_clamp_that_two_read_is_fused():
    graph = simplified(lambda m, x: (y := F.relu(m.conv(x))) + torch.sigmoid(m.conv(y)))
    assert kinds(graph) == ["convolution", "convolution", "sigmoid", "add"]


@pytest.mark.parametrize(
    ("first", "then", "both"),
    [
        ((0, math.inf), (0, 6), (0, 6)),
        ((-1, 3), (0, 2), (0, 2)),
        ((-1, 3), (5, 9), (5, 5)),
        ((2, 3), (-9, 1), (1, 1)),
        ((-math.inf, 4), (1, math.inf), (1, 4)),
    ],
)
def test_clamps_in_a_row_intersect(first, then, both):
    graph = simplified(lambda m, x: m.conv(x * 4).clamp(*first).clamp(*then).relu())
    assert graph.nodes[-1].clamp == Clamp(max(0, both[0]), max(0, both[1]))
    graph = simplified(lambda m, x: (x * 4).flatten(1).clamp(*first).clamp(*then))
    assert graph.nodes[-1].operation == Clamp(*both)


def test_functions_of_one_number_join_into_one_table():
    graph = simplified(lambda m, x: (torch.tanh(m.conv(x)) * 3 + 1).sigmoid().clamp(max=0.7) / 2)
    assert kinds(graph) == ["convolution", "tanh"]
    names = [function.name for function in graph.nodes[-1].operation.functions]
    assert names == ["tanh", "mul_scalar", "add_scalar", "sigmoid", "clamp", "mul_scalar"]


def test_a_function_that_something_else_reads_is_not_joined():
    graph = simplified(lambda m, x: torch.exp(y := torch.tanh(x)) + m.conv(y))
    assert kinds(graph) == ["tanh", "exp", "convolution", "add"]


def test_nodes_that_no_output_needs_are_dropped():
    graph = simplified(lambda m, x: (m.conv(x), x * 2)[1])
    assert kinds(graph) == ["mul_scalar"]
    assert not graph.constants


def test_simplifying_twice_changes_nothing():
    parts = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()), nn.Sigmoid()
    once = simplify(capture(randomize(Several(*parts)), torch.randn(1, 4, 3, 3)))
    assert simplify(once) == once


def test_a_long_chain_is_simplified_in_linear_time():
    channels = torch.ones(2)
    nodes = [Node("x", Input(), shape=(1, 2, 3))]
    constants = {}
    for i in range(3000):
        names = {role: f"{i}.{role}" for role in ("weight", "bias")}
        constants |= {names["weight"]: channels, names["bias"]: channels * 0}
        nodes.append(Node(f"{i}", ChannelAffine(), (nodes[-1].name,), names, (1, 2, 3)))
        nodes.append(Node(f"r{i}", Reshape((2, 3)), (nodes[-1].name,), shape=(1, 2, 3)))
    start = time.process_time()
    simplify(FloatGraph(tuple(nodes), (nodes[-1].name,), constants))
    assert time.process_time() - start < 3
