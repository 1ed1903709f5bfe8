"""Splits a graph into the blocks that are reconstructed together, by its edges only."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.operations import Constant, Convolution, Input, Tokens

Granularity = Literal["layer", "block", "network"]
"""The part of a network that is reconstructed at a time."""


@dataclass(frozen=True)
class Block:
    """A part of a graph that is optimized as a whole.

    Attributes:
        nodes: the nodes in the order of computation; the constants that they read come first.
        entries: the edges from outside that the nodes read.
        exits: the edges of the nodes that other nodes read, or that are outputs of the graph.
    """

    nodes: tuple[Node, ...]
    entries: tuple[str, ...]
    exits: tuple[str, ...]

    @property
    def layers(self) -> tuple[Node, ...]:
        """The nodes of the block that have a weight."""
        return tuple(node for node in self.nodes if has_weight(node))

    @property
    def name(self) -> str:
        """The names of the first and the last layer, or of the last node if there is no layer."""
        layers = self.layers
        if not layers:
            return self.nodes[-1].name
        first, last = layers[0].name, layers[-1].name
        return first if first == last else f"{first} to {last}"


def has_weight(node: Node) -> bool:
    """Tells whether a node has a weight, whose rounding can be learned."""
    return "weight" in node.constants


def find_blocks(graph: FloatGraph, granularity: Granularity = "block") -> tuple[Block, ...]:
    """Returns the blocks of a graph, which are reconstructed one after the other.

    With `layer`, each block is a layer and the nodes after it up to the next layer. With `network`,
    the whole graph is one block. With `block`, the graph is cut at the edges that every path from
    its inputs to its end crosses, so that each block has one entry and one exit. Examples are a
    residual block, an attention and an MLP. A part without a weight is joined to a neighbour. A
    depthwise convolution is joined to the 1x1 convolutions around it, as in an inverted residual
    and in a depthwise-separable convolution.

    Args:
        graph: the graph to split.
        granularity: the size of the blocks.

    Returns:
        Blocks in the order of computation. Together they hold every node exactly once, except
        inputs and constants.

    Source: Li et al. 2021 (BRECQ), section 3.2, arXiv:2102.05426, where blocks are named by hand.
    """
    ambient = _ambient(graph)
    body = [node for node in graph.nodes if node.name not in ambient]
    if granularity == "network":
        parts = [[node for node in body if not isinstance(node.operation, Input)]]
    elif granularity == "layer":
        parts = _split_at_layers(node for node in body if not isinstance(node.operation, Input))
    else:
        parts = _join_depthwise(graph, _join_weightless(_split_at_cuts(body)))
    return tuple(_block(graph, part, ambient) for part in parts if part)


def _ambient(graph: FloatGraph) -> set[str]:
    """Returns constants, integer inputs and nodes that only move those; no cut concerns them."""
    found: set[str] = set()
    for node in graph.nodes:
        moved = node.inputs and not node.operation.decides_scale and found.issuperset(node.inputs)
        if moved or isinstance(node.operation, (Constant, Tokens)):
            found.add(node.name)
    return found


def _split_at_cuts(body: Sequence[Node]) -> list[list[Node]]:
    """Splits nodes where a single edge connects the nodes before with the nodes after."""
    position = {node.name: index for index, node in enumerate(body)}
    last_reader = dict.fromkeys(position, -1)
    for index, node in enumerate(body):
        last_reader.update((name, index) for name in node.inputs if name in position)
    parts: list[list[Node]] = [[]]
    reach = -1  # the last reader of all edges so far, except the edge of the last node
    for index, node in enumerate(body):
        if not isinstance(node.operation, Input):
            parts[-1].append(node)
        if reach <= index:
            parts.append([])
        reach = max(reach, last_reader[node.name])
    return [part for part in parts if part]


def _split_at_layers(nodes: Iterable[Node]) -> list[list[Node]]:
    """Splits nodes before every node with a weight except the first."""
    parts: list[list[Node]] = [[]]
    for node in nodes:
        if has_weight(node) and any(map(has_weight, parts[-1])):
            parts.append([])
        parts[-1].append(node)
    return parts


def _join_weightless(parts: Sequence[list[Node]]) -> list[list[Node]]:
    """Joins parts without a weight to a neighbour.

    A part that keeps the shape is joined to the part before it, and any other to the part after it.
    """
    joined: list[list[Node]] = []
    waiting: list[Node] = []
    for part in parts:
        if any(map(has_weight, part)):
            joined.append(waiting + part)
            waiting = []
        elif joined and not waiting and _keeps_shape(part, joined[-1][-1]):
            joined[-1] += part
        else:
            waiting += part
    if waiting and joined:
        joined[-1] += waiting
    elif waiting:
        joined.append(waiting)
    return joined


def _keeps_shape(part: Sequence[Node], before: Node) -> bool:
    return all(node.shape == before.shape for node in part)


def _join_depthwise(graph: FloatGraph, parts: Sequence[list[Node]]) -> list[list[Node]]:
    """Joins the sequences `1x1, depthwise, 1x1` and `depthwise, 1x1`, in the order of the parts."""
    joined: list[list[Node]] = []
    kinds = [_kind(graph, part) for part in parts]
    index = 0
    while index < len(parts):
        count = 1
        if kinds[index : index + 3] == ["1x1", "depthwise", "1x1"]:
            count = 3
        elif kinds[index : index + 2] == ["depthwise", "1x1"]:
            count = 2
        joined.append([node for part in parts[index : index + count] for node in part])
        index += count
    return joined


def _kind(graph: FloatGraph, part: Sequence[Node]) -> str:
    """Returns the kind of convolution of a part with a single layer, and "other" otherwise."""
    layers = [node for node in part if has_weight(node)]
    if len(layers) != 1 or not isinstance(layers[0].operation, Convolution):
        return "other"
    outputs, inputs, *kernel = graph.constants_of(layers[0])["weight"].shape
    if layers[0].operation.groups > 1:
        return "depthwise" if inputs == 1 and outputs == layers[0].operation.groups else "other"
    return "1x1" if math.prod(kernel) == 1 else "other"


def _block(graph: FloatGraph, part: Sequence[Node], ambient: set[str]) -> Block:
    """Returns the block of a part, with its entries, its exits and the constants that it needs."""
    by_name, own = graph.by_name, {node.name for node in part}
    needed, waiting = set(own), [name for node in part for name in node.inputs]
    while waiting:
        name = waiting.pop()
        if (
            name in ambient
            and name not in needed
            and not isinstance(by_name[name].operation, Input)
        ):
            needed.add(name)
            waiting += by_name[name].inputs
    nodes = tuple(node for node in graph.nodes if node.name in needed)
    entries = dict.fromkeys(name for node in nodes for name in node.inputs if name not in needed)
    readers = {name for node in graph.nodes if node.name not in own for name in node.inputs}
    exits = tuple(n.name for n in part if n.name in readers or n.name in graph.outputs)
    return Block(nodes, tuple(entries), exits)
