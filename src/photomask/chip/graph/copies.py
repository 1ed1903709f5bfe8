"""Inserts narrow copies of wide edges for the operations that multiply."""

from collections.abc import Mapping
from dataclasses import replace

from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.operations import Copy
from photomask.chip.graph.scales import scale_owners


def with_copies(graph: FloatGraph, wide: set[str], states: Mapping[str, int]) -> FloatGraph:
    """Returns a graph in which layers and products read copies of wide edges.

    Args:
        graph: a graph without copies.
        wide: the nodes that decide the scale of the wide edges.
        states: by name of an input that carries state, the index of the output that updates it.
    """
    owners = scale_owners(graph, states)
    copies: dict[str, Node] = {}
    nodes = []
    for node in graph.nodes:
        if node.operation.multiplies:
            for name in node.inputs:
                if owners[name] in wide and name not in copies:
                    copies[name] = replace(
                        graph.by_name[name],
                        name=f"{name}.copy",
                        operation=Copy(),
                        inputs=(name,),
                        constants={},
                        clamp=None,
                    )
                    nodes.append(copies[name])
            inputs = tuple(copies[name].name if name in copies else name for name in node.inputs)
            node = replace(node, inputs=inputs)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))
