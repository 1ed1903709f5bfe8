import pytest
import torch
from tests.chip.reconstruction.networks import Inverted, Separable, Transformer, TwoEnds
from torch import Tensor, nn

from photomask.chip.graph import FloatGraph, capture, simplify
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Constant, Input
from photomask.chip.reconstruction import find_blocks

IMAGE = torch.randn(1, 3, 8, 8)
NETWORKS = {
    "inverted": (Inverted, IMAGE),
    "separable": (Separable, IMAGE),
    "transformer": (Transformer, torch.randn(1, 6, 4)),
    "two ends": (TwoEnds, IMAGE),
}


def graph_of(model: nn.Module, example: Tensor) -> FloatGraph:
    return simplify(capture(model.eval(), example))


def layers_of(graph: FloatGraph, granularity="block") -> list[list[str]]:
    return [[node.name for node in block.layers] for block in find_blocks(graph, granularity)]


def test_a_residual_block_is_one_block(small_network):
    graph = graph_of(small_network, torch.randn(1, 3, 12, 12))
    assert layers_of(graph) == [["stem.0"], ["body.0"], ["head"]]
    stem, body, head = find_blocks(graph)
    assert body.entries == stem.exits
    assert [node.operation.kind for node in body.nodes] == ["convolution", "add"]
    assert [node.operation.kind for node in head.nodes] == ["mean", "linear"]


def test_an_inverted_residual_is_one_block_whether_it_adds_or_not():
    expected = [["stem"]]
    expected += [[f"{n}.expand", f"{n}.depthwise", f"{n}.project"] for n in ("first", "second")]
    assert layers_of(graph_of(Inverted(), IMAGE)) == [*expected, ["head"]]


def test_a_depthwise_convolution_joins_the_1x1_after_it():
    found = layers_of(graph_of(Separable(), IMAGE))
    assert found == [["stem"], ["layers.0", "layers.1"], ["layers.2", "layers.3"]]


def test_attention_and_mlp_are_blocks():
    found = layers_of(graph_of(Transformer(), torch.randn(1, 6, 4)))
    attention = [["query", "key", "value", "out"], ["up", "down"]]
    blocks = [[f"blocks.{i}.{name}" for name in part] for i in range(2) for part in attention]
    assert found == [["embed"], *blocks, ["head"]]


def test_an_output_in_the_middle_does_not_join_what_it_divides():
    blocks = find_blocks(graph_of(TwoEnds(), IMAGE))
    assert [block.exits for block in blocks] == [("first",), ("second",)]


def test_by_layer_every_layer_is_alone_and_by_network_all_are_together():
    graph = graph_of(Inverted(), IMAGE)
    names = [node.name for node in graph.nodes if "weight" in node.constants]
    assert layers_of(graph, "layer") == [[name] for name in names]
    assert layers_of(graph, "network") == [names]


@pytest.mark.parametrize("granularity", ["layer", "block", "network"])
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_one_after_the_other_are_the_whole_network(name, granularity):
    kind, example = NETWORKS[name]
    graph = graph_of(kind(), example)
    x = torch.randn(5, *example.shape[1:])
    values: dict[str, Tensor] = dict(zip(graph.inputs, [x], strict=True))
    seen: list[str] = []
    for block in find_blocks(graph, granularity):
        inside = {edge: values[edge] for edge in block.entries}
        for node in block.nodes:
            operands = [inside[edge] for edge in node.inputs]
            inside[node.name] = compute(node, operands, graph.constants_of(node))
            seen += [node.name] * (not isinstance(node.operation, Constant))
        values |= {edge: inside[edge] for edge in block.exits}
    body = [n.name for n in graph.nodes if not isinstance(n.operation, (Input, Constant))]
    assert sorted(seen) == sorted(body)
    for found, expected in zip((values[edge] for edge in graph.outputs), graph(x), strict=True):
        assert torch.equal(found, expected)
