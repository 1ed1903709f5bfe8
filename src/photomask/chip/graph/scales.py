"""Which edges share a scale, and which scales no sum lets out."""

import math
from collections.abc import Iterator, Mapping

from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.operations import (
    Clamp,
    Concatenate,
    Convolution,
    Copy,
    Linear,
    Matmul,
    Mean,
    Pad,
    Permute,
)
from photomask.chip.graph.transformer_operations import Normalize, Softmax


def scale_owners(graph: FloatGraph, states: Mapping[str, int] | None = None) -> dict[str, str]:
    """Returns for each edge the node that decides its scale: itself, or where its values are from.

    Operations that only move or select values keep the scale of their input. A state has the scale
    of the output that it carries on, and so has what joins the two.
    """
    owners: dict[str, str] = {}
    for node in graph.nodes:
        owners[node.name] = owners[node.inputs[0]] if node.operation.keeps_scale else node.name
    states = states or {}
    for name, output in states.items():
        _hand_over(owners, name, owners[graph.outputs[output]])
    carried = {owners[name] for name in states}
    for node in graph.nodes:
        if isinstance(node.operation, Concatenate):
            joined = {owners[name] for name in node.inputs}
            if len(joined) == 1 and joined <= carried:
                _hand_over(owners, node.name, joined.pop())
    return owners


def _hand_over(owners: dict[str, str], name: str, owner: str) -> None:
    """Gives all edges with the scale of a node that of another."""
    for edge, current in owners.items():
        if current == name:
            owners[edge] = owner


def sums_along(graph: FloatGraph, name: str, axis: int) -> list[Node]:
    """Returns the nodes that sum up what an edge holds at different positions of one of its axes.

    `sum_t x[t] * s[t] * y[t]` has a common scale only if `s` does not depend on `t`: a scale for
    each token of an attention's values, say, would have to leave the product with the weights of
    the attention, which sums over tokens. Axes are followed through permutations, copies and
    clamps; behind a reshape an axis is another.

    Args:
        graph: with the edge.
        name: of the edge.
        axis: of the edge; negative ones count from the end.
    """
    axes = len(graph.by_name[name].shape)
    if not -axes <= axis < axes:
        return []
    found = {node.name: node for node in _walk(graph, name, axis % axes)}
    return list(found.values())


def _walk(graph: FloatGraph, name: str, axis: int) -> Iterator[Node]:
    readers = graph.users()[name]
    for node in graph.nodes:
        if node.name not in readers:
            continue
        if isinstance(node.operation, Permute):
            yield from _walk(graph, node.name, node.operation.order.index(axis))
        elif isinstance(node.operation, (Clamp, Copy)):
            yield from _walk(graph, node.name, axis)
        elif any(
            source == name and axis in _summed(node, position, graph.by_name[name].shape)
            for position, source in enumerate(node.inputs)
        ):
            yield node


def _summed(node: Node, position: int, shape: tuple[int, ...]) -> set[int]:
    """Returns the axes of one of a node's inputs that the node sums over."""
    last = len(shape) - 1
    match node.operation:
        case Matmul():
            return {last if position == 0 else last - 1}
        case Linear() | Normalize() | Softmax():
            return {last}
        case Convolution(groups=groups):
            window = set(range(2, len(shape)))
            return window if groups == shape[1] else {1} | window
        case Mean(axes=axes):
            return {axis % len(shape) for axis in axes}
    return set()


def refusal(graph: FloatGraph, name: str, axis: int) -> str:
    """Says why an edge cannot have a scale for each index of one of its axes.

    Args:
        graph: with the edge.
        name: of the edge.
        axis: of the edge.
    """
    found = sums_along(graph, name, axis)
    here = f"output of {_at(graph.by_name[name])}: one scale for each index of axis {axis} of "
    here += f"{list(graph.by_name[name].shape)}"
    if not found:
        return f"{here} is more than the steps of a program know: their activations have one scale"
    sums = ", ".join(f"{node.operation.kind} {_at(node)}" for node in found[:3])
    return f"{here} would have to leave the sum of {sums}, which runs along that axis"


def _at(node: Node) -> str:
    return f"{node.name!r} ({node.source})" if node.source else f"{node.name!r}"


def makes_values(node: Node) -> bool:
    """Tells whether a node that keeps its input's scale holds values that its input may not reach.

    The lowest possible padding, below every maximum, is none: any code that is low enough will do.
    """
    operation = node.operation
    if isinstance(operation, Pad):
        return operation.value != 0 and math.isfinite(operation.value)
    return isinstance(operation, Clamp) and (operation.low > 0 or operation.high < 0)
