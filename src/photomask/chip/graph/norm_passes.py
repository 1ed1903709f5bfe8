"""Passes for what transformers write out in small operations: norms, and constant factors."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.operations import (
    Add,
    Convolution,
    Linear,
    Matmul,
    Mean,
    Multiply,
    Pointwise,
    PointwiseFunction,
)
from photomask.chip.graph.transformer_operations import Normalize

Constants = Mapping[str, Tensor]
PROBES = torch.tensor([0.5, 1.0, 2.0, 3.0, 100.0], dtype=torch.float64)
"""Where functions of one number are evaluated to learn what they are."""
AFFINE = ("add_scalar", "mul_scalar", "neg")


def find_root_mean_square_norms(graph: FloatGraph) -> FloatGraph:
    """Applies to `x * rsqrt(mean(x**2) + epsilon)` over the last axis: it becomes a norm.

    What the functions are is asked of the functions, not of their names.
    """
    nodes = graph.by_name
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(graph.outputs)
    constants = dict(graph.constants)
    found: list[Node] = []
    for node in graph.nodes:
        match = _root_mean_square(node, nodes, readers)
        if match is None:
            found.append(node)
            continue
        x, epsilon = match
        gain, bias = f"{node.name}.gain", f"{node.name}.bias"
        constants |= {gain: torch.ones(node.shape[-1]), bias: torch.zeros(node.shape[-1])}
        roles = {"gain": gain, "bias": bias}
        operation = Normalize(centred=False, epsilon=epsilon)
        found.append(replace(node, operation=operation, inputs=(x,), constants=roles))
    return replace(graph, nodes=tuple(found), constants=constants).pruned()


def _root_mean_square(
    node: Node, nodes: Mapping[str, Node], readers: Mapping[str, int]
) -> tuple[str, float] | None:
    """Returns what a node normalises and its epsilon, if that is what the node ends."""
    if not isinstance(node.operation, Multiply):
        return None
    for x, factor in (node.inputs, node.inputs[::-1]):
        inverse = nodes[factor]
        if readers[factor] != 1 or not isinstance(inverse.operation, Pointwise):
            continue
        mean = nodes[inverse.inputs[0]]
        last = len(node.shape) - 1
        if mean.operation != Mean((last,), True) or readers[mean.name] != 1:
            continue
        square = nodes[mean.inputs[0]]
        epsilon = _epsilon(inverse.operation)
        if epsilon is not None and square.inputs in ((x,), (x, x)) and _squares(square):
            return x, epsilon
    return None


def _squares(node: Node) -> bool:
    if isinstance(node.operation, Multiply):
        return node.inputs[0] == node.inputs[1]
    if not isinstance(node.operation, Pointwise):
        return False
    values = torch.cat([PROBES, -PROBES])
    return torch.allclose(node.operation.compute([values], {}), values**2, rtol=1e-9)


def _epsilon(operation: Pointwise) -> float | None:
    """Returns the number that is added before an inverse square root; None for other functions."""
    at_zero = float(operation.compute([torch.zeros((), dtype=torch.float64)], {}))
    epsilon = at_zero**-2 if at_zero > 0 else math.inf
    expected = torch.rsqrt(PROBES + epsilon)
    found = operation.compute([PROBES], {})
    return epsilon if torch.allclose(found, expected, rtol=1e-9) else None


def fold_factor(producer: Node, node: Node, constants: Constants) -> tuple[Node, Constants] | None:
    """Applies to a constant factor and addend after a layer that nothing else reads.

    They become part of the layer's weight and bias, or of a matrix product's rescaling.
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
    if not isinstance(layer, (Convolution, Linear, Normalize)):
        return None
    role = "gain" if isinstance(layer, Normalize) else "weight"
    weight, bias = (constants[producer.constants[name]] for name in (role, "bias"))
    return producer, {
        producer.constants[role]: weight * factor,
        producer.constants["bias"]: bias * factor + added,
    }


def join_functions_of_one_edge(graph: FloatGraph) -> FloatGraph:
    """Applies to sums and products of functions of one and the same edge: one function.

    `x * sigmoid(x)` is a function of one number, however a model writes it.
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
    """Returns the edge that a node is a function of, and the functions."""
    if not isinstance(node.operation, Pointwise):
        return node.name, ()
    source, functions = _chain(nodes[node.inputs[0]], nodes)
    return source, functions + node.operation.functions


def _combine(operation: Add | Multiply, branches: Sequence[Pointwise | None], x: Tensor) -> Tensor:
    values = [x if branch is None else branch.compute([x], {}) for branch in branches]
    return operation.compute(values, {})
