"""Finds norms that a model writes as several small operations."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.operations import Clamp, Gather, Mean, Multiply, Normalize, Pointwise

PROBES = torch.tensor([0.5, 1.0, 2.0, 3.0, 100.0], dtype=torch.float64)
"""The arguments at which functions of one number are evaluated to identify them."""


def find_root_mean_square_norms(graph: FloatGraph) -> FloatGraph:
    """Returns a graph in which `x * rsqrt(mean(x**2) + epsilon)` over the last axis is a norm.

    The same applies to `x / max(sqrt(sum(x**2)), epsilon)`, a vector of length 1, with a gain of
    `1 / sqrt(n)`; the two forms differ below `epsilon`. The functions are identified by their
    values, and not by their names.
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
        x, epsilon, terms = match
        gain, bias = f"{node.name}.gain", f"{node.name}.bias"
        ones, epsilon = torch.ones(node.shape[-1]), epsilon / terms
        constants |= {gain: ones / math.sqrt(terms), bias: torch.zeros(node.shape[-1])}
        roles = {"gain": gain, "bias": bias}
        operation = Normalize(centred=False, epsilon=epsilon)
        found.append(replace(node, operation=operation, inputs=(x,), constants=roles))
    return replace(graph, nodes=tuple(found), constants=constants).pruned()


def _root_mean_square(
    node: Node, nodes: Mapping[str, Node], readers: Mapping[str, int]
) -> tuple[str, float, int] | None:
    """Returns the parts of a norm that ends with a node, or None if no norm does.

    Returns:
        The normalized edge, the number that is added before the inverse root, and the divisor that
        turns the sum of squares into a mean (1 if it is a mean already).
    """
    if not isinstance(node.operation, Multiply):
        return None
    last = len(node.shape) - 1
    for x, factor in (node.inputs, node.inputs[::-1]):
        functions: list[Clamp | Pointwise] = []
        inner = nodes[factor]
        while readers[inner.name] == 1 and _is_of_one_number(inner, last):
            if isinstance(inner.operation, (Clamp, Pointwise)):
                functions.insert(0, inner.operation)
            inner = nodes[inner.inputs[0]]
        if not functions or readers[inner.name] != 1:
            continue
        if not isinstance(inner.operation, Mean) or inner.clamp is not None:
            continue
        if (inner.operation.axes, inner.operation.keep_axes) != ((last,), True):
            continue
        square = nodes[inner.inputs[0]]
        epsilon = _epsilon(functions)
        if epsilon is not None and square.inputs in ((x,), (x, x)) and _squares(square):
            return x, epsilon, 1 if inner.operation.divide else node.shape[-1]
    return None


def _is_of_one_number(node: Node, last: int) -> bool:
    """Tells whether a node is a function of one number, or repeats one along the last axis."""
    if isinstance(node.operation, Gather):
        return node.operation.axis == last and not any(node.operation.index)
    return isinstance(node.operation, (Clamp, Pointwise))


def _squares(node: Node) -> bool:
    if isinstance(node.operation, Multiply):
        return node.inputs[0] == node.inputs[1]
    if not isinstance(node.operation, Pointwise):
        return False
    values = torch.cat([PROBES, -PROBES])
    return torch.allclose(node.operation.compute([values], {}), values**2, rtol=1e-9)


def _epsilon(functions: Sequence[Clamp | Pointwise]) -> float | None:
    """Returns the number added before an inverse square root, or None for other functions."""

    def run(x: torch.Tensor) -> torch.Tensor:
        for function in functions:
            x = function.compute([x], {})
        return x

    at_zero = float(run(torch.zeros((), dtype=torch.float64)))
    epsilon = at_zero**-2 if at_zero > 0 else math.inf
    expected = torch.rsqrt(PROBES + epsilon)
    return epsilon if torch.allclose(run(PROBES), expected, rtol=1e-9) else None
