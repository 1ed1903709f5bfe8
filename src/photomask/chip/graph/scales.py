"""Finds the edges that share a scale, and the sums that forbid a scale per index."""

from collections.abc import Iterator, Mapping

from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.operations import (
    Concatenate,
    Copy,
)


def scale_owners(graph: FloatGraph, states: Mapping[str, int] | None = None) -> dict[str, str]:
    """Returns, by edge, the node that decides its scale.

    Operations that only move or select values keep the scale of their input. A state has the scale
    of the output that updates it, and so has a concatenation of the two.
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
    """Gives all edges with the scale of one node the scale of another."""
    for edge, current in owners.items():
        if current == name:
            owners[edge] = owner


def sums_along(graph: FloatGraph, name: str, axis: int) -> list[Node]:
    """Returns the nodes that sum elements of an edge along one of its axes.

    `sum_t x[t] * s[t] * y[t]` has a common scale only if `s` does not depend on `t`. An example is
    a scale for each token of attention's values. It could not be factored out of the product with
    the attention weights, which sums over tokens. The axis is followed through copies and through
    operations that move or select elements; it ends at a reshape.

    Args:
        graph: the graph with the edge.
        name: the name of the edge.
        axis: the axis of the edge; negative ones count from the end.
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
        if node.operation.keeps_scale or isinstance(node.operation, Copy):
            behind = node.operation.axis_behind(axis)
            if behind is not None:
                yield from _walk(graph, node.name, behind)
            continue
        shape = graph.by_name[name].shape
        if any(
            source == name and axis in node.operation.summed_axes(position, shape)
            for position, source in enumerate(node.inputs)
        ):
            yield node


def refusal(graph: FloatGraph, name: str, axis: int) -> str:
    """Returns the reason why an edge cannot have a scale for each index of one of its axes.

    Args:
        graph: the graph with the edge.
        name: the name of the edge.
        axis: the axis of the edge.
    """
    found = sums_along(graph, name, axis)
    here = f"output of {_at(graph.by_name[name])}: one scale for each index of axis {axis} of "
    here += f"{list(graph.by_name[name].shape)}"
    if not found:
        return f"{here} is not supported by programs, in which activations have one scale"
    sums = ", ".join(f"{node.operation.kind} {_at(node)}" for node in found[:3])
    return f"{here} cannot be factored out of the sum of {sums}, which runs along that axis"


def _at(node: Node) -> str:
    return f"{node.name!r} ({node.source})" if node.source else f"{node.name!r}"
