"""Rewrites of the float graph; each says when it applies and what it does.

Every pass keeps what the graph computes, up to float rounding; `simplify` runs them in order.
"""

from dataclasses import replace

import torch

from photomask.chip.graph.float_graph import FloatGraph, Node, redirect
from photomask.chip.graph.operations import (
    ChannelAffine,
    Clamp,
    Convolution,
    Linear,
    Pointwise,
    PointwiseFunction,
    Reshape,
)


def simplify(graph: FloatGraph) -> FloatGraph:
    """Folds batch norms, fuses clamps, joins functions of one number."""
    graph = merge_affine_chains(graph)
    graph = fold_affine(graph)
    graph = affine_as_convolution(graph)
    graph = fuse_clamps(graph)
    graph = join_pointwise(graph)
    return graph.pruned()


def merge_affine_chains(graph: FloatGraph) -> FloatGraph:
    """Applies to an affine whose only reader is an affine: both become one."""
    users, nodes = graph.users(), graph.by_name
    for node in graph.nodes:
        if not isinstance(node.operation, ChannelAffine):
            continue
        first = nodes.get(node.inputs[0])
        if first is None or not isinstance(first.operation, ChannelAffine):
            continue
        if users[first.name] != [node.name]:
            continue
        a, b = graph.constants_of(first), graph.constants_of(node)
        constants = {
            node.constants["weight"]: a["weight"] * b["weight"],
            node.constants["bias"]: a["bias"] * b["weight"] + b["bias"],
        }
        graph = graph.replaced(
            {node.name: replace(node, inputs=first.inputs), first.name: None}, **constants
        )
        return merge_affine_chains(graph)
    return graph


def fold_affine(graph: FloatGraph) -> FloatGraph:
    """Applies to a batch norm after a convolution or linear that nothing else reads.

    `gamma * (W x + b) + beta = (gamma * W) x + (gamma * b + beta)`, per output channel.

    Source: Jacob et al. 2018, section 3.2, arXiv:1712.05877.
    """
    users, nodes = graph.users(), graph.by_name
    for node in graph.nodes:
        if not isinstance(node.operation, ChannelAffine):
            continue
        layer = nodes[node.inputs[0]]
        if users[layer.name] != [node.name] or not _folds(layer):
            continue
        affine, weights = graph.constants_of(node), graph.constants_of(layer)
        scale, weight = affine["weight"].double(), weights["weight"].double()
        folded = {
            layer.constants["weight"]: weight * scale.reshape(-1, *(1,) * (weight.ndim - 1)),
            layer.constants["bias"]: weights["bias"].double() * scale + affine["bias"].double(),
        }
        constants = {name: tensor.float() for name, tensor in folded.items()}
        graph = graph.replaced({node.name: None}, **constants)
        graph = redirect(graph, node.name, layer.name)
    return graph


def _folds(layer: Node) -> bool:
    if isinstance(layer.operation, Convolution):
        return True
    return isinstance(layer.operation, Linear) and len(layer.shape) == 2


def affine_as_convolution(graph: FloatGraph) -> FloatGraph:
    """Applies to every affine left: it becomes a depthwise convolution of one element.

    Over two axes or fewer the input is first reshaped to have a spatial axis of one element.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        if not isinstance(node.operation, ChannelAffine):
            nodes.append(node)
            continue
        channels = node.shape[1]
        rank = min(2, max(1, len(node.shape) - 2))
        spatial = node.shape[2:] if len(node.shape) in (3, 4) else (_size(node.shape[2:]),)
        ones, none = (1,) * rank, ((0, 0),) * rank
        convolution = replace(
            node, operation=Convolution(ones, none, ones, channels), shape=(1, channels, *spatial)
        )
        if spatial == node.shape[2:]:
            nodes.append(convolution)
            continue
        before = replace(
            node,
            name=f"{node.name}.widened",
            operation=Reshape((channels, *spatial)),
            constants={},
            shape=convolution.shape,
        )
        inner = replace(convolution, name=f"{node.name}.affine", inputs=(before.name,))
        after = replace(node, operation=Reshape(node.shape[1:]), inputs=(inner.name,), constants={})
        nodes += [before, inner, after]
    constants = dict(graph.constants)
    for node in nodes:
        if isinstance(node.operation, Convolution):
            key = node.constants["weight"]
            if constants[key].ndim == 1:
                constants[key] = constants[key].reshape(-1, 1, *(1,) * len(node.operation.stride))
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def fuse_clamps(graph: FloatGraph) -> FloatGraph:
    """Applies to a ReLU or clamp that alone reads an accumulating node, or another clamp.

    The node's requantization saturates there instead; two clamps in a row become one.
    """
    users = graph.users()
    nodes = graph.by_name
    for node in graph.nodes:
        if not isinstance(node.operation, Clamp):
            continue
        producer = nodes[node.inputs[0]]
        if users[producer.name] != [node.name]:
            continue
        clamp = node.operation
        if producer.operation.takes_clamp:
            fused = producer.clamp or Clamp(float("-inf"), float("inf"))
            changed = replace(producer, clamp=_intersection(fused, clamp))
        elif isinstance(producer.operation, Clamp):
            changed = replace(producer, operation=_intersection(producer.operation, clamp))
        else:
            continue
        graph = graph.replaced({node.name: None, producer.name: changed})
        graph = redirect(graph, node.name, producer.name)
        users, nodes = graph.users(), graph.by_name
    return graph


def _intersection(first: Clamp, then: Clamp) -> Clamp:
    """Returns the clamp that equals `then(first(x))`."""
    return Clamp(
        max(then.low, min(then.high, first.low)), max(then.low, min(then.high, first.high))
    )


def join_pointwise(graph: FloatGraph) -> FloatGraph:
    """Applies to a function of one number that alone reads another: one table for both.

    A clamp between or after them joins as well.
    """
    users, nodes = graph.users(), graph.by_name
    for node in graph.nodes:
        producer = nodes.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if producer is None or users[producer.name] != [node.name]:
            continue
        if not isinstance(producer.operation, Pointwise):
            continue
        if isinstance(node.operation, Pointwise):
            functions = producer.operation.functions + node.operation.functions
        elif isinstance(node.operation, Clamp):
            functions = (
                *producer.operation.functions,
                PointwiseFunction("clamp", node.operation.apply),
            )
        else:
            continue
        joined = replace(producer, operation=Pointwise(functions))
        graph = graph.replaced({node.name: None, producer.name: joined})
        graph = redirect(graph, node.name, producer.name)
        return join_pointwise(graph)
    return graph
