"""The rewrite that lets multipliers read narrow copies of wide edges."""

from collections.abc import Mapping
from dataclasses import replace

from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.operations import Copy
from photomask.chip.graph.scales import scale_owners


def with_copies(graph: FloatGraph, wide: set[str], states: Mapping[str, int]) -> FloatGraph:
    """Lets layers and products read copies of the edges that have the scale of `wide`.

    Args:
        graph: without copies.
        wide: nodes that decide a scale.
        states: the inputs that carry an output of the run before, and which output it is.
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
