"""Rewrites of the float graph; each says when it applies and what it does.

Every pass keeps what the graph computes, up to float rounding; `simplify` runs them in order. Most
join a node with the one that it alone reads, in a single walk.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.operations import (
    ChannelAffine,
    Clamp,
    Convolution,
    Linear,
    Pointwise,
    PointwiseFunction,
    Reshape,
)

Constants = Mapping[str, Tensor]
Joining = Callable[[Node, Node, Constants], tuple[Node, Constants] | None]
"""Producer, its only reader and all constants → the producer that does both, and the constants that
it changes; None where the pass does not apply."""


def simplify(graph: FloatGraph) -> FloatGraph:
    """Folds batch norms, fuses clamps, joins functions of one number."""
    graph = join_readers(graph, merge_affines)
    graph = join_readers(graph, fold_affine)
    graph = affine_as_convolution(graph)
    graph = join_readers(graph, fuse_clamp)
    graph = join_readers(graph, join_pointwise)
    return graph.pruned()


def join_readers(graph: FloatGraph, join: Joining) -> FloatGraph:
    """Joins every node that alone reads another with it, where `join` applies.

    The joined node keeps the producer's name, and may be joined with its own only reader again.
    """
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(graph.outputs)
    kept: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    constants = dict(graph.constants)
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        producer = kept[node.inputs[0]] if len(node.inputs) == 1 else None
        alone = producer is not None and readers[producer.name] == 1
        joined = join(producer, node, constants) if producer is not None and alone else None
        if joined is None or producer is None:
            kept[node.name] = node
            continue
        kept[producer.name] = joined[0]
        constants |= joined[1]
        renamed[node.name] = producer.name
        readers[producer.name] = readers[node.name]
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return FloatGraph(tuple(kept.values()), outputs, constants)


def merge_affines(
    producer: Node, node: Node, constants: Constants
) -> tuple[Node, Constants] | None:
    """Applies to an affine whose only reader is an affine: both become one."""
    if not (
        isinstance(producer.operation, ChannelAffine) and isinstance(node.operation, ChannelAffine)
    ):
        return None
    first, then = _constants(producer, constants), _constants(node, constants)
    return producer, {
        producer.constants["weight"]: first["weight"] * then["weight"],
        producer.constants["bias"]: first["bias"] * then["weight"] + then["bias"],
    }


def fold_affine(producer: Node, node: Node, constants: Constants) -> tuple[Node, Constants] | None:
    """Applies to a batch norm after a convolution or linear that nothing else reads.

    `gamma * (W x + b) + beta = (gamma * W) x + (gamma * b + beta)`, per output channel.

    Source: Jacob et al. 2018, section 3.2, arXiv:1712.05877.
    """
    if not isinstance(node.operation, ChannelAffine) or not _folds(producer):
        return None
    affine, layer = _constants(node, constants), _constants(producer, constants)
    scale, weight = affine["weight"].double(), layer["weight"].double()
    bias = layer["bias"].double() * scale + affine["bias"].double()
    weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return producer, {
        producer.constants["weight"]: weight.float(),
        producer.constants["bias"]: bias.float(),
    }


def _folds(layer: Node) -> bool:
    if layer.clamp is not None:
        return False
    if isinstance(layer.operation, Convolution):
        return True
    return isinstance(layer.operation, Linear) and len(layer.shape) == 2


def _constants(node: Node, constants: Constants) -> dict[str, Tensor]:
    return {role: constants[name] for role, name in node.constants.items()}


def affine_as_convolution(graph: FloatGraph) -> FloatGraph:
    """Applies to every affine left: it becomes a depthwise convolution of one element.

    Where there is not one or two spatial axes, it is first reshaped to have one.
    """
    nodes: list[Node] = []
    constants = dict(graph.constants)
    for node in graph.nodes:
        if not isinstance(node.operation, ChannelAffine):
            nodes.append(node)
            continue
        batch, channels, *spatial = node.shape
        if len(spatial) not in (1, 2):
            spatial = [math.prod(spatial)]
        ones, none = (1,) * len(spatial), ((0, 0),) * len(spatial)
        key = node.constants["weight"]
        constants[key] = constants[key].reshape(-1, 1, *ones)
        shape = (batch, channels, *spatial)
        convolution = replace(node, operation=Convolution(ones, none, ones, channels), shape=shape)
        if shape == node.shape:
            nodes.append(convolution)
            continue
        before = replace(
            node,
            name=f"{node.name}.widened",
            operation=Reshape(shape[1:]),
            constants={},
            shape=shape,
        )
        inner = replace(convolution, name=f"{node.name}.affine", inputs=(before.name,))
        after = replace(node, operation=Reshape(node.shape[1:]), inputs=(inner.name,), constants={})
        nodes += [before, inner, after]
    return replace(graph, nodes=tuple(nodes), constants=constants)


def fuse_clamp(producer: Node, node: Node, constants: Constants) -> tuple[Node, Constants] | None:
    """Applies to a ReLU or clamp that alone reads an accumulating node, or another clamp.

    The node's requantization saturates there instead; two clamps in a row become one.
    """
    if not isinstance(node.operation, Clamp):
        return None
    if producer.operation.takes_clamp:
        first = producer.clamp or Clamp(-math.inf, math.inf)
        return replace(producer, clamp=_intersection(first, node.operation)), {}
    if isinstance(producer.operation, Clamp):
        return replace(producer, operation=_intersection(producer.operation, node.operation)), {}
    return None


def _intersection(first: Clamp, then: Clamp) -> Clamp:
    """Returns the clamp that equals `then(first(x))`."""
    return Clamp(
        max(then.low, min(then.high, first.low)), max(then.low, min(then.high, first.high))
    )


def join_pointwise(
    producer: Node, node: Node, constants: Constants
) -> tuple[Node, Constants] | None:
    """Applies to a function of one number, or a clamp, that alone reads another: one table."""
    if not isinstance(producer.operation, Pointwise):
        return None
    if isinstance(node.operation, Pointwise):
        functions = node.operation.functions
    elif isinstance(node.operation, Clamp):
        functions = (PointwiseFunction("clamp", node.operation.apply),)
    else:
        return None
    return replace(producer, operation=Pointwise(producer.operation.functions + functions)), {}
