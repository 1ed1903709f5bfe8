"""The pass that finds norms which a model writes out in small operations."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import torch

from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.operations import Mean, Multiply, Pointwise
from photomask.chip.graph.transformer_operations import Normalize

PROBES = torch.tensor([0.5, 1.0, 2.0, 3.0, 100.0], dtype=torch.float64)
"""Where functions of one number are evaluated to learn what they are."""


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
