"""Simplifies the float graph by passes; each docstring says when the pass applies and what it does.

Every pass keeps the outputs of the graph, up to float rounding. `simplify` runs the passes in
order. Most of them walk over the graph once, and join a node with its only input.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.norm_passes import find_root_mean_square_norms
from photomask.chip.graph.operations import (
    Add,
    ChannelAffine,
    Clamp,
    Convolution,
    Matmul,
    Multiply,
    Permute,
    Pointwise,
    PointwiseFunction,
    Reshape,
)
from photomask.chip.graph.sharing import share_constants
from photomask.chip.graph.table_passes import tabulate_positions

_LOG = logging.getLogger(__name__)

Constants = Mapping[str, Tensor]
AFFINE = ("add_scalar", "mul_scalar", "neg")
"""The functions of one number that consist of a factor and an addend."""
Joining = Callable[[Node, Node, Constants], tuple[Node, Constants] | None]
"""Joins a producer with its only reader, given all constants.

It returns the joined node and the constants that change, or None where the pass does not apply.
"""


def join_readers(graph: FloatGraph, join: Joining) -> FloatGraph:
    """Returns a graph in which each node that is the only reader of another is joined with it.

    Nodes are joined where `join` applies. The joined node keeps the producer's name, and can be
    joined with its own only reader in turn.
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
    return replace(graph, nodes=tuple(kept.values()), outputs=outputs, constants=constants)


def merge_affines(
    producer: Node, node: Node, constants: Constants
) -> tuple[Node, Constants] | None:
    """Applies to a channel affine whose only reader is one too, and merges the two."""
    if not isinstance(producer.operation, ChannelAffine) or producer.operation != node.operation:
        return None
    first, then = _constants(producer, constants), _constants(node, constants)
    return producer, {
        producer.constants["weight"]: first["weight"] * then["weight"],
        producer.constants["bias"]: first["bias"] * then["weight"] + then["bias"],
    }


def fold_into_layer(
    producer: Node, node: Node, constants: Constants
) -> tuple[Node, Constants] | None:
    """Applies to a batch norm, factor or addend that is a layer's only reader, and folds it."""
    return fold_affine(producer, node, constants) or fold_factor(producer, node, constants)


def fold_affine(producer: Node, node: Node, constants: Constants) -> tuple[Node, Constants] | None:
    """Applies to a channel affine that is a layer's or norm's only reader, and folds it.

    `gamma * (W x + b) + beta = (gamma * W) x + (gamma * b + beta)`, per output channel. For a norm,
    the gain takes the place of the weight.

    Source: Jacob et al. 2018, section 3.2, arXiv:1712.05877.
    """
    if not isinstance(node.operation, ChannelAffine) or not _folds(producer, node.operation.axis):
        return None
    role = producer.operation.factor_role
    affine, layer = _constants(node, constants), _constants(producer, constants)
    scale, weight = affine["weight"].double(), layer[role].double()
    bias = layer["bias"].double() * scale + affine["bias"].double()
    weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return producer, {
        producer.constants[role]: weight.float(),
        producer.constants["bias"]: bias.float(),
    }


def fold_factor(producer: Node, node: Node, constants: Constants) -> tuple[Node, Constants] | None:
    """Applies to a constant factor and addend that are the only reader of a layer or product.

    They become part of the layer's weight and bias; a factor becomes part of the rescaling of a
    matrix product.
    """
    operation, layer = node.operation, producer.operation
    if not isinstance(operation, Pointwise) or producer.clamp is not None:
        return None
    if any(function.name not in AFFINE for function in operation.functions):
        return None
    at_zero, at_one = operation.compute([torch.tensor([0.0, 1.0], dtype=torch.float64)], {})
    factor, added = float(at_one - at_zero), float(at_zero)
    if isinstance(layer, Matmul) and added == 0 and factor > 0:
        return replace(producer, operation=Matmul(layer.factor * factor)), {}
    role = layer.factor_role
    if not role:
        return None
    weight, bias = (constants[producer.constants[name]] for name in (role, "bias"))
    return producer, {
        producer.constants[role]: weight * factor,
        producer.constants["bias"]: bias * factor + added,
    }


def _folds(layer: Node, axis: int) -> bool:
    """Tells whether factors along an axis fold into a layer, which must have no fused clamp."""
    if layer.clamp is not None or not layer.operation.factor_role:
        return False
    return axis == layer.operation.channels_in(len(layer.shape))


def _constants(node: Node, constants: Constants) -> dict[str, Tensor]:
    return {role: constants[name] for role, name in node.constants.items()}


def affine_as_convolution(graph: FloatGraph) -> FloatGraph:
    """Applies to every remaining channel affine, which becomes a depthwise convolution.

    The kernel of the convolution has one element. A tensor without one or two spatial axes is first
    reshaped to have one. Channels at the last axis are moved to axis 1 and back.
    """
    graph = channels_first(graph)
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


def channels_first(graph: FloatGraph) -> FloatGraph:
    """Applies to every channel affine of the last axis, which is moved to axis 1 and back."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if not isinstance(node.operation, ChannelAffine) or node.operation.axis == 1:
            nodes.append(node)
            continue
        last = len(node.shape) - 1
        there, back = (0, last, *range(1, last)), (0, *range(2, last + 1), 1)
        moved = tuple(node.shape[axis] for axis in there)
        before = replace(
            node,
            name=f"{node.name}.channels_first",
            operation=Permute(there),
            constants={},
            shape=moved,
        )
        inner = replace(
            node,
            name=f"{node.name}.channels",
            operation=ChannelAffine(),
            inputs=(before.name,),
            shape=moved,
        )
        after = replace(node, operation=Permute(back), inputs=(inner.name,), constants={})
        nodes += [before, inner, after]
    return replace(graph, nodes=tuple(nodes))


def fuse_clamp(producer: Node, node: Node, constants: Constants) -> tuple[Node, Constants] | None:
    """Applies to a ReLU or clamp that is the only reader of an accumulating node or of a clamp.

    The requantization of the node then saturates at the bounds. Two clamps in a row become one.
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
    """Applies to a function or clamp that is a function's only reader, and joins their tables."""
    if not isinstance(producer.operation, Pointwise):
        return None
    if isinstance(node.operation, Pointwise):
        functions = node.operation.functions
    elif isinstance(node.operation, Clamp):
        functions = (PointwiseFunction("clamp", node.operation.apply),)
    else:
        return None
    return replace(producer, operation=Pointwise(producer.operation.functions + functions)), {}


def join_functions_of_one_edge(graph: FloatGraph) -> FloatGraph:
    """Applies to sums and products of functions of the same edge, which become one function.

    For example, `x * sigmoid(x)` is a function of one number, also where a model writes it so.
    """
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        nodes[node.name] = _joined(node, nodes)
    return replace(graph, nodes=tuple(nodes.values())).pruned()


def _joined(node: Node, nodes: Mapping[str, Node]) -> Node:
    if not isinstance(node.operation, (Add, Multiply)) or node.clamp is not None:
        return node
    chains = [_chain(nodes[name], nodes) for name in node.inputs]
    sources = {source for source, _ in chains}
    if len(sources) != 1 or not any(functions for _, functions in chains):
        return node
    branches = [Pointwise(functions) if functions else None for _, functions in chains]
    apply = partial(_combine, node.operation, branches)
    function = PointwiseFunction(node.operation.kind, apply)
    return replace(node, operation=Pointwise((function,)), inputs=(sources.pop(),))


def _chain(node: Node, nodes: Mapping[str, Node]) -> tuple[str, tuple[PointwiseFunction, ...]]:
    """Returns the edge that a node is a function of, and the functions in order."""
    if not isinstance(node.operation, Pointwise):
        return node.name, ()
    source, functions = _chain(nodes[node.inputs[0]], nodes)
    return source, functions + node.operation.functions


def _combine(operation: Add | Multiply, branches: Sequence[Pointwise | None], x: Tensor) -> Tensor:
    values = [x if branch is None else branch.compute([x], {}) for branch in branches]
    return operation.compute(values, {})


PASSES: tuple[tuple[str, Callable[[FloatGraph], FloatGraph]], ...] = (
    ("tabulate_positions", tabulate_positions),
    ("join_pointwise", partial(join_readers, join=join_pointwise)),
    ("find_root_mean_square_norms", find_root_mean_square_norms),
    ("join_functions_of_one_edge", join_functions_of_one_edge),
    ("join_pointwise", partial(join_readers, join=join_pointwise)),
    ("merge_affines", partial(join_readers, join=merge_affines)),
    ("fold_into_layer", partial(join_readers, join=fold_into_layer)),
    ("affine_as_convolution", affine_as_convolution),
    ("fuse_clamp", partial(join_readers, join=fuse_clamp)),
    ("join_pointwise", partial(join_readers, join=join_pointwise)),
    ("pruned", FloatGraph.pruned),
    ("share_constants", share_constants),
)
"""The passes with their names, in the order in which `simplify` runs them."""


def simplify(graph: FloatGraph) -> FloatGraph:
    """Returns a graph with norms found, batch norms folded, clamps fused and functions joined.

    Constants that are one tensor of the model stay one, unless a pass changes them differently. For
    example, different batch norms after two uses of a layer make two weights (`FloatGraph.parted`).
    """
    captured = graph
    for name, rewrite in PASSES:
        before = [(node.name, node.operation.kind) for node in graph.nodes]
        graph = rewrite(graph)
        after = [(node.name, node.operation.kind) for node in graph.nodes]
        if after != before:
            _LOG.debug("pass %s: %d nodes became %d", name, len(before), len(after))
    return replace(graph, norm_factors=_norm_factors(captured, graph))


def _norm_factors(captured: FloatGraph, simplified: FloatGraph) -> dict[str, Tensor]:
    """Returns by name of a weight how much larger folding made each of its outputs, [outputs]."""
    found = dict(captured.norm_factors)
    for node in simplified.nodes:
        name = simplified.tensor_of(node.constants.get("weight", ""))
        before, after = captured.constants.get(name), simplified.constants.get(name)
        if before is None or after is None or before.shape != after.shape or before.ndim < 2:
            continue
        if not torch.equal(before, after):
            sizes = [x.double().flatten(1).norm(dim=1) for x in (after, before)]
            ratio = torch.where(sizes[1] > 0, sizes[0] / sizes[1], 1.0)
            ratio = torch.where(ratio > 0, ratio, 1.0).float()
            found[name] = ratio * captured.norm_factors.get(name, 1.0)
    return found
