"""Tensors that a model uses at several places: one quantizer for all of them where it can be."""

from collections.abc import Mapping

from photomask.chip.graph import FloatGraph
from photomask.chip.graph.operations import Embedding
from photomask.chip.quantizers import PerTensor, Quantizer
from photomask.chip.recipe import SiteQuantizers


def share_weights(
    graph: FloatGraph, quantizers: Mapping[str, Quantizer]
) -> tuple[dict[str, str], dict[str, Quantizer]]:
    """Gives layers with one weight one quantizer: that of the most bits, of equal ones the first.

    A weight and its transpose share one where a scale is that of the whole tensor. Scales of
    channels belong to one axis, so there each has its own.

    Args:
        graph: whose layers they are.
        quantizers: what the recipe says, by layer.

    Returns:
        By layer, the first that has its weight; and the quantizers of those first ones.
    """
    first: dict[tuple[str, bool], str] = {}
    owners: dict[str, str] = {}
    for node in graph.nodes:
        if node.name in quantizers:
            name = node.constants["weight"]
            whole = isinstance(quantizers[node.name].granularity, PerTensor)
            key = graph.tensor_of(name) if whole else name
            owners[node.name] = first.setdefault((key, whole), node.name)
    chosen: dict[str, Quantizer] = {}
    for name, owner in owners.items():
        if owner not in chosen or quantizers[name].bits > chosen[owner].bits:
            chosen[owner] = quantizers[name]
    return owners, chosen


def is_table(graph: FloatGraph, name: str) -> bool:
    """Tells whether a constant is the table of an embedding, as a tied head's weight is."""
    return any(role == "table" for _, role in graph.uses[graph.tensor_of(name)])


def tables_of_one_scale(
    graph: FloatGraph, resolved: Mapping[str, SiteQuantizers]
) -> dict[str, str]:
    """Returns the embeddings that look rows up in the table of an earlier one, and which that is.

    Both hold rows of one table, so one scale serves both, and the table is stored once. Outputs of
    the graph keep their own, as do embeddings whose quantizers differ.
    """
    first: dict[tuple[str, str], str] = {}
    found: dict[str, str] = {}
    for node in graph.nodes:
        if isinstance(node.operation, Embedding) and node.name not in graph.outputs:
            quantizer = resolved[node.name].activation
            key = node.constants["table"], f"{type(quantizer)} {quantizer.extra_repr()}"
            owner = first.setdefault(key, node.name)
            if owner != node.name:
                found[node.name] = owner
    return found
