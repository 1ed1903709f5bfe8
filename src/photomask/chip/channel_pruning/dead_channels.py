"""Finds channels that can leave without changing what a model computes.

A set of coupled channels is dead if, wherever it is read,

- the weights that read it are all zero, or
- its values are zero for every input, as behind weights that are all zero, or
- its values are the same for every input, and what a layer makes of them is one number for each
  output channel. This number is then added to the bias of the layer. Behind padding with zeros it
  differs at the border, so such channels stay.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from photomask.chip.channel_pruning.analysis import Analysis
from photomask.chip.channel_pruning.constant_values import constant_values, constants_of
from photomask.chip.graph import Node
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Accumulates

WITH_BIAS = (nn.Conv1d, nn.Conv2d, nn.Linear)
"""The layers whose bias can be set."""


@dataclass(eq=False)
class DeadChannels:
    """The dead sets of coupled channels of a model.

    Attributes:
        removed: the numbers of the sets.
        addends: by name of a layer, what is added to its bias, [outputs].
        staying: by set, why its constant values cannot be added to a bias.
    """

    removed: set[int] = field(default_factory=set)
    addends: dict[str, Tensor] = field(default_factory=dict)
    staying: dict[int, str] = field(default_factory=dict)


def find_dead(analysis: Analysis) -> DeadChannels:
    """Returns the dead channels; of each group at least one set stays."""
    coupling = analysis.coupling
    values = constant_values(coupling.graph)
    found = DeadChannels()
    readers = _readers(analysis)
    groups = analysis.groups()
    while True:
        before = len(found.removed)
        for group in groups:
            for number in group.numbers:
                left = set(group.numbers) - found.removed
                if number in found.removed or len(left) == 1:
                    continue
                addends = _addends(analysis, found, number, readers.get(number, []), values)
                if addends is None:
                    continue
                found.removed.add(number)
                for layer, addend in addends.items():
                    found.addends[layer] = found.addends.get(layer, 0) + addend
        if len(found.removed) == before:
            return found


def _readers(analysis: Analysis) -> dict[int, list[tuple[Node, int]]]:
    """Returns for each set the nodes behind which it is gone, with the position of the input."""
    coupling = analysis.coupling
    sets = {
        name: set(np.unique(coupling.unions.roots(x)).tolist())
        for name, x in coupling.edges.items()
    }
    found: dict[int, list[tuple[Node, int]]] = {}
    for node in coupling.graph.nodes:
        for place, name in enumerate(node.inputs):
            for number in sets[name] - sets[node.name]:
                found.setdefault(number, []).append((node, place))
    return found


def _addends(
    analysis: Analysis,
    found: DeadChannels,
    number: int,
    readers: list[tuple[Node, int]],
    values: dict[str, Tensor],
) -> dict[str, Tensor] | None:
    """Returns what is added to biases in place of a set, or None if it is not dead."""
    coupling, graph = analysis.coupling, analysis.coupling.graph
    addends: dict[str, Tensor] = {}
    for node, place in readers:
        name = node.inputs[place]
        ours = torch.from_numpy(coupling.leaving(name, frozenset({number})))
        x = torch.where(ours, values[name], 0.0)
        if node.operation.accumulates is not Accumulates.WEIGHTED:
            if not bool((x == 0).all()):
                return None
            continue
        constants = constants_of(graph, node)
        constants["bias"] = torch.zeros_like(constants["bias"])
        constants["weight"] = _without_rows(analysis, node, constants["weight"], found.removed)
        unknown = compute(
            node, [x.isnan().double()], {**constants, "weight": constants["weight"].abs()}
        )
        if bool((unknown > 0).any()):
            return None
        made = compute(node, [x.nan_to_num()], constants)
        if not bool(made.any()):
            continue
        addend = _uniform(node, made)
        layer = _layer_with_bias(analysis, node)
        if addend is None or layer is None:
            found.staying[number] = (
                f"{node.name!r} pads with zeros, so its constant value differs at the border"
                if addend is None
                else f"{node.name!r} is no layer with a bias of its own to which its constant "
                "value could be added"
            )
            return None
        addends[layer] = addend
    return addends


def _without_rows(analysis: Analysis, node: Node, weight: Tensor, removed: set[int]) -> Tensor:
    """Returns a weight with zeros in the rows of channels that leave."""
    edge = analysis.coupling.leaving(node.name, frozenset(removed))
    axis = node.operation.channels_in(edge.ndim)
    gone = np.all(np.moveaxis(edge, axis, 0).reshape(edge.shape[axis], -1), axis=1).reshape(-1)
    if len(gone) != len(weight):
        return weight
    return weight.masked_fill(torch.from_numpy(gone).reshape(-1, *(1,) * (weight.ndim - 1)), 0.0)


def _uniform(node: Node, made: Tensor) -> Tensor | None:
    """Returns the one number of each output channel, or None if it differs between places."""
    axis = node.operation.channels_in(made.ndim)
    rows = made.movedim(axis, 0).reshape(made.shape[axis], -1)
    scale = rows.abs().max()
    same = bool(((rows - rows[:, :1]).abs() <= 1e-12 * scale).all())
    return rows[:, 0] if same else None


def _layer_with_bias(analysis: Analysis, node: Node) -> str | None:
    """Returns the name of a layer of PyTorch that computes a node, and no other node."""
    graph = analysis.coupling.graph
    made = graph.made_of.get(node.constants["weight"])
    if not made or not made[0].tensor.endswith("weight"):
        return None
    name = made[0].tensor.removesuffix("weight").removesuffix(".")
    users = [
        other
        for other in graph.nodes
        for constant in other.constants.values()
        if any(view.tensor == made[0].tensor for view in graph.made_of.get(constant) or ())
    ]
    layer = analysis.model.get_submodule(name)
    return name if len(users) == 1 and isinstance(layer, WITH_BIAS) else None
