"""Finds the layers that a pruner prunes, and says why others stay dense."""

from collections.abc import Mapping
from dataclasses import dataclass

from photomask.chip.graph import Node
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.pruning.base import Pruner
from photomask.chip.recipe.matching import matching
from photomask.chip.sparsity import NofM
from photomask.errors import PruningError


@dataclass(frozen=True)
class ChosenLayers:
    """The layers of a model that a pruner prunes.

    Attributes:
        layers: the layers to prune, each weight once, in the order of computation.
        dense: by name of a layer that stays dense, the reason.
    """

    layers: tuple[Node, ...]
    dense: Mapping[str, str]


def choose_layers(prepared: PreparedModel, pruner: Pruner) -> ChosenLayers:
    """Finds the layers that a pruner prunes.

    Raises:
        PruningError: a layer that the pruner names cannot be pruned, or no layer is left. The
            message names the layer and the law.
        RecipeError: a pattern of the pruner's layers matches nothing.
    """
    owners = [
        node
        for node in prepared.graph.nodes
        if "weight" in node.constants and prepared.weight_owner(node.name) == node.name
    ]
    if pruner.layers is None:
        reasons = {node.name: _reason(prepared, node, pruner) for node in owners}
        dense = {name: reason for name, reason in reasons.items() if reason is not None}
        chosen = tuple(node for node in owners if node.name not in dense)
        if not chosen:
            told = "; ".join(f"{name!r}: {reason}" for name, reason in dense.items())
            raise PruningError(f"no layer can be pruned by {pruner!r}. {told or 'There is none'}")
        return ChosenLayers(chosen, dense)
    sites = [site for site in prepared.sites if site.has_weight]
    named = {name for pattern in pruner.layers for name in matching(pattern, sites)}
    wanted = {prepared.weight_owner(name) for name in named}
    chosen = tuple(node for node in owners if node.name in wanted)
    for node in chosen:
        if (reason := _reason(prepared, node, pruner)) is not None:
            raise PruningError(f"{node.name!r} ({node.source}) cannot be pruned: {reason}")
    left = {node.name: "not named" for node in owners if node not in chosen}
    return ChosenLayers(chosen, left)


def _reason(prepared: PreparedModel, node: Node, pruner: Pruner) -> str | None:
    """Returns why a layer cannot be pruned, or None where it can."""
    weight = prepared.parameter_of(node)
    if not prepared.can_round(node):
        return "its weight is also a table or a transposed weight, which is not pruned"
    if prepared.has_own_factors(node):
        return "its weight is also the table of an embedding, which is not pruned"
    inputs = weight.shape[1]
    if inputs == 1:
        return "each of its outputs reads one input channel"
    if isinstance(pruner.pattern, NofM) and inputs % pruner.pattern.group:
        return (
            f"it sums {inputs} input channels, which groups of {pruner.pattern.group} do not "
            f"divide, so it cannot be {pruner.pattern} sparse"
        )
    return None
