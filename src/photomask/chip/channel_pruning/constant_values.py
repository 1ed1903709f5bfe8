"""Finds the elements of edges that are the same for every input, such as those behind zero weights.

Unknown elements are NaN, which spreads through every operation that reads them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Accumulates, Input, IntegerUse


def constant_values(graph: FloatGraph) -> dict[str, Tensor]:
    """Returns all edges for one sample in float64, with NaN where a value depends on the input."""
    values: dict[str, Tensor] = {}
    for node in graph.nodes:
        reads_integers = any(
            node.operation.use_of_integers(place) not in (None, IntegerUse.MOVES)
            for place in range(len(node.inputs))
        )
        if isinstance(node.operation, Input) or reads_integers:
            values[node.name] = torch.full(node.shape, torch.nan, dtype=torch.float64)
        else:
            operands = [values[name] for name in node.inputs]
            values[node.name] = _value_of(node, operands, constants_of(graph, node))
    return values


def constants_of(graph: FloatGraph, node: Node) -> dict[str, Tensor]:
    """Returns a node's constants in float64."""
    return {role: value.double() for role, value in graph.constants_of(node).items()}


def _value_of(node: Node, operands: Sequence[Tensor], constants: dict[str, Tensor]) -> Tensor:
    operation = node.operation
    if operation.accumulates is Accumulates.WEIGHTED:
        (x,) = operands
        unknown = compute(
            node,
            [x.isnan().double()],
            {"weight": constants["weight"].abs(), "bias": torch.zeros_like(constants["bias"])},
        )
        return compute(node, [x.nan_to_num()], constants).masked_fill(unknown > 0, torch.nan)
    result = compute(node, operands, constants)
    if len(operands) == 1 and not operation.moves and operands[0].shape == result.shape:
        # A function of one number may give a number for NaN.
        result = result.masked_fill(operands[0].isnan(), torch.nan)
    return result
