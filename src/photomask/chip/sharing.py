"""Chooses one quantizer, where possible, for a tensor that a model uses at several places."""

from collections.abc import Mapping

from photomask.chip.graph import FloatGraph
from photomask.chip.graph.operations import Embedding
from photomask.chip.quantizers import PerTensor, Quantizer
from photomask.chip.recipe import SiteQuantizers


def share_weights(
    graph: FloatGraph, quantizers: Mapping[str, Quantizer]
) -> tuple[dict[str, str], dict[str, Quantizer]]:
    """Gives all layers with the same weight one quantizer: the widest, or the first of equal width.

    A weight and its transpose share a quantizer where one scale serves the whole tensor. Scales per
    channel belong to one axis, so a transposed weight then has a quantizer of its own.

    Args:
        graph: the graph of the layers.
        quantizers: by layer, the weight quantizer that the recipe gives it.

    Returns:
        By layer, the first layer with the same weight; and the quantizers of those first layers.
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
    """Tells whether a constant is also the table of an embedding, as the weight of a tied head."""
    return any(role == "table" for _, role in graph.uses[graph.tensor_of(name)])


def tables_of_one_scale(
    graph: FloatGraph, resolved: Mapping[str, SiteQuantizers]
) -> dict[str, str]:
    """Returns, by embedding, the earlier embedding that reads the same table.

    Both outputs hold rows of one table, so one scale serves both, and the table is stored once.
    Embeddings that are outputs of the graph, or whose quantizers differ, keep their own scale.
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
