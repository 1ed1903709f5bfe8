"""Which parts of a graph are reconstructed together, from its edges alone."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.operations import Constant, Convolution, Input, Tokens

Granularity = Literal["layer", "block", "network"]
"""How much is reconstructed at a time."""


@dataclass(frozen=True)
class Block:
    """A part of a graph that is optimised as a whole, with what goes in and comes out.

    Attributes:
        nodes: in the order of computation; constants that they read come first.
        entries: edges from outside that they read.
        exits: edges of theirs that others read, or that are outputs of the graph.
    """

    nodes: tuple[Node, ...]
    entries: tuple[str, ...]
    exits: tuple[str, ...]

    @property
    def layers(self) -> tuple[Node, ...]:
        """The nodes that have a weight."""
        return tuple(node for node in self.nodes if has_weight(node))

    @property
    def name(self) -> str:
        """The first node with a weight, and the last; of a block without any, the last node."""
        layers = self.layers
        if not layers:
            return self.nodes[-1].name
        first, last = layers[0].name, layers[-1].name
        return first if first == last else f"{first} to {last}"


def has_weight(node: Node) -> bool:
    """Tells whether a node has a weight, and so a rounding to learn."""
    return "weight" in node.constants


def find_blocks(graph: FloatGraph, granularity: Granularity = "block") -> tuple[Block, ...]:
    """Splits a graph into the blocks that are reconstructed one after the other.

    `layer`: every layer alone, with what follows up to the next. `network`: everything at once.
    `block`: the graph is cut at the edges that every path from its inputs to its end crosses, so
    that each part has one entry and one exit: a residual block, an attention, an MLP. Parts without
    a weight join a neighbour, and a depthwise convolution the 1x1 convolutions around it, between
    which it stands in an inverted residual and in a depthwise-separable convolution.

    Returns:
        Blocks that hold every node but inputs and constants exactly once, in order.

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
    """Returns constants and integer inputs, and what only moves them: no path of activations."""
    found: set[str] = set()
    for node in graph.nodes:
        moved = node.inputs and not node.operation.decides_scale and found.issuperset(node.inputs)
        if moved or isinstance(node.operation, (Constant, Tokens)):
            found.add(node.name)
    return found


def _split_at_cuts(body: Sequence[Node]) -> list[list[Node]]:
    """Splits where a single edge leads from all that is before to all that comes after."""
    position = {node.name: index for index, node in enumerate(body)}
    last_reader = dict.fromkeys(position, -1)
    for index, node in enumerate(body):
        last_reader.update((name, index) for name in node.inputs if name in position)
    parts: list[list[Node]] = [[]]
    reach = -1  # of every edge so far but the last node's own
    for index, node in enumerate(body):
        if not isinstance(node.operation, Input):
            parts[-1].append(node)
        if reach <= index:
            parts.append([])
        reach = max(reach, last_reader[node.name])
    return [part for part in parts if part]


def _split_at_layers(nodes: Iterable[Node]) -> list[list[Node]]:
    """Splits before every node with a weight but the first."""
    parts: list[list[Node]] = [[]]
    for node in nodes:
        if has_weight(node) and any(map(has_weight, parts[-1])):
            parts.append([])
        parts[-1].append(node)
    return parts


def _join_weightless(parts: Sequence[list[Node]]) -> list[list[Node]]:
    """Joins parts without a weight to a neighbour.

    What keeps the shape joins what is before, the rest what is after.
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
    """Joins `1x1, depthwise, 1x1` and `depthwise, 1x1`, from first to last."""
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
    """Tells what convolution a part is, if it has a single layer."""
    layers = [node for node in part if has_weight(node)]
    if len(layers) != 1 or not isinstance(layers[0].operation, Convolution):
        return "other"
    outputs, inputs, *kernel = graph.constants_of(layers[0])["weight"].shape
    if layers[0].operation.groups > 1:
        return "depthwise" if inputs == 1 and outputs == layers[0].operation.groups else "other"
    return "1x1" if math.prod(kernel) == 1 else "other"


def _block(graph: FloatGraph, part: Sequence[Node], ambient: set[str]) -> Block:
    """Finds what goes into and out of a part, and the constants that it needs."""
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
