"""Turns functions of a token's position into lookup tables."""

from dataclasses import replace

import torch
from torch import Tensor

from photomask.chip.graph.float_graph import FloatGraph, Node, largest_difference
from photomask.chip.graph.operations import Embedding, Input, Permute, Reshape, Tokens

SAME = 1e-6
"""The largest difference between a table and the function, relative to its largest entry.

Sums in another order cause small differences.
"""


def tabulate_positions(graph: FloatGraph) -> FloatGraph:
    """Returns a graph in which functions of an embedding of single numbers are tables.

    Examples are the sines and cosines of rotary positions, which a program can only look up. The
    function is evaluated for every row of the embedding. A function that mixes positions stays
    unchanged.
    """
    origins, by_name = _origins(graph), graph.by_name
    ends = _ends(graph, origins)
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        found = None
        if node.name in ends:
            origin = by_name[origins[node.name]]
            found = _table(graph, node, origin)
        if found is None:
            nodes.append(node)
        else:
            rows, axis = found
            constants[f"{node.name}.table"] = rows
            nodes += _look_up(node, by_name[origins[node.name]].inputs[0], rows, axis)
    return replace(graph, nodes=tuple(nodes), constants=constants).pruned()


def _origins(graph: FloatGraph) -> dict[str, str]:
    """Returns, by edge that depends only on one embedding of single numbers, that embedding."""
    nodes, fixed = graph.by_name, set()
    origins: dict[str, str] = {}
    for node in graph.nodes:
        if isinstance(node.operation, Embedding) and node.shape[-1] == 1:
            source = nodes[node.inputs[0]]
            if isinstance(source.operation, Tokens) and len(source.shape) == 2:
                origins[node.name] = node.name
                continue
        known = [name for name in node.inputs if name in origins or name in fixed]
        if isinstance(node.operation, Input) or len(known) < len(node.inputs):
            continue
        given = {origins[name] for name in known if name in origins}
        if not given:
            fixed.add(node.name)
        elif len(given) == 1:
            origins[node.name] = given.pop()
    return origins


def _ends(graph: FloatGraph, origins: dict[str, str]) -> set[str]:
    """Returns the edges that other nodes read, before operations that only move their values."""
    nodes, found = graph.by_name, set()
    leaving = [x for node in graph.nodes if node.name not in origins for x in node.inputs]
    for name in (*leaving, *graph.outputs):
        while name in origins and not nodes[name].operation.decides_scale:
            name = nodes[name].inputs[0]
        if name in origins and origins[name] != name:
            found.add(name)
    return found


def _table(graph: FloatGraph, node: Node, origin: Node) -> tuple[Tensor, int] | None:
    """Returns the value of an edge for every position, [positions, …], and the positions' axis.

    None stands for an edge of which no axis is that of the positions.
    """
    tokens = graph.by_name[origin.inputs[0]]
    inner = [n for n in graph.nodes if not isinstance(n.operation, Input) or n is tokens]
    function = FloatGraph(tuple(inner), (node.name,), graph.constants).pruned()
    count, length = len(graph.constants_of(origin)["table"]), tokens.shape[1]
    every = torch.arange(-(-count // length) * length).clamp(max=count - 1).reshape(-1, length)
    (values,) = function(every)
    probe = torch.randint(count, (4, length), generator=torch.Generator().manual_seed(0))
    (expected,) = function(probe)
    for axis in range(1, values.ndim):
        if values.shape[axis] == length:
            rows = values.movedim(axis, 1).flatten(0, 1)[:count]
            if largest_difference([rows[probe].movedim(1, axis)], [expected]) <= SAME:
                return rows.flatten(1), axis
    return None


def _look_up(node: Node, tokens: str, rows: Tensor, axis: int) -> list[Node]:
    """Returns nodes that look rows up and reshape them to the node's output, under its name."""
    name, length = f"{node.name}.rows", node.shape[axis]
    others = [size for at, size in enumerate(node.shape) if at not in (0, axis)]
    order = [0, *range(2, len(node.shape))]
    order.insert(axis, 1)
    parts: list[tuple] = [
        (name, Embedding(), tokens, {"table": f"{node.name}.table"}, (1, length, rows.shape[1])),
        (f"{name}.split", Reshape((length, *others)), name, {}, (1, length, *others)),
        (node.name, Permute(tuple(order)), f"{name}.split", {}, node.shape),
    ]
    return [Node(n, made, (x,), keys, shape, node.source) for n, made, x, keys, shape in parts]
