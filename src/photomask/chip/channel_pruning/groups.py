"""Collects coupled channels into groups, whose members are ranked against each other."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from photomask.chip.channel_pruning.closing import removable
from photomask.chip.channel_pruning.coupling import Coupling


def module_of(tensor: str) -> str:
    """Returns the name of the module that holds a tensor."""
    return tensor.rpartition(".")[0]


def layer_of(tensor: str) -> str:
    """Returns the name of the layer that has a tensor as its weight.

    It is the name of the module, or that of the tensor if it is not called `weight`, because a
    module may have several of its own.
    """
    module, _, attribute = tensor.rpartition(".")
    return module if module and attribute == "weight" else tensor


@dataclass(frozen=True, eq=False)
class CoupledTensor:
    """One tensor of the model with the slices that leave together with channels.

    Attributes:
        name: the name of the parameter or buffer.
        axis: the axis along which it is cut.
        slices: for each set of coupled channels, its indices along the axis.
        produces: True if the axis is that of a layer's output channels.
        owner: the module that holds the tensor.
        value: the tensor, detached.
    """

    name: str
    axis: int
    slices: tuple[tuple[int, ...], ...]
    produces: bool
    owner: nn.Module
    value: Tensor

    @property
    def is_parameter(self) -> bool:
        """True for a parameter, and False for a buffer."""
        return isinstance(getattr(self.owner, self.name.rpartition(".")[2]), nn.Parameter)

    @property
    def layer(self) -> str:
        """The name of the layer that has the tensor (`layer_of`)."""
        return layer_of(self.name)

    def sums(self, values: Tensor) -> Tensor:
        """Returns for each set of coupled channels the sum of numbers over its slices.

        Args:
            values: one number for each element of the tensor.
        """
        by_index = values.movedim(self.axis, 0).reshape(values.shape[self.axis], -1).sum(1)
        return torch.stack([by_index[list(places)].sum() for places in self.slices])


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Sets of coupled channels of the same layers, such as the channels of a residual stream.

    A set leaves as a whole: one output channel of each layer that is added to the stream, the
    parameters of its norms, and the input channel of each layer that reads it. A set may hold
    several channels of one layer, such as those of an attention head.

    Attributes:
        tensors: the tensors that are cut.
        numbers: the number of each set in the coupling of the graph.
    """

    tensors: tuple[CoupledTensor, ...]
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers whose output channels leave."""
        return tuple(dict.fromkeys(t.layer for t in self.tensors if t.produces))


def find_groups(coupling: Coupling, model: nn.Module) -> list[ChannelGroup]:
    """Returns the groups of channels that can leave a model.

    Args:
        coupling: the closed coupling of the model's graph.
        model: the model, whose tensors have the names that the graph knows.
    """
    edges = [np.unique(removable(coupling.unions, x)) for x in coupling.edges.values()]
    computed = set(np.concatenate(edges).tolist())
    places: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(dict)
    for tensor, axis, roots in _cuts(coupling):
        for index, root in enumerate(roots.tolist()):
            if root in computed and root:
                places[root].setdefault((tensor, axis), []).append(index)
    by_kind: dict[tuple[tuple[str, int, int], ...], list[int]] = defaultdict(list)
    for root, found in places.items():
        if any(key in coupling.producers for key in found):
            kind = tuple(sorted((*key, len(indices)) for key, indices in found.items()))
            by_kind[kind].append(root)
    return [_group(kind, sorted(roots), places, coupling, model) for kind, roots in by_kind.items()]


def _group(
    kind: Sequence[tuple[str, int, int]],
    roots: Sequence[int],
    places: dict[int, dict[tuple[str, int], list[int]]],
    coupling: Coupling,
    model: nn.Module,
) -> ChannelGroup:
    tensors = []
    for name, axis, _ in kind:
        path, _, attribute = name.rpartition(".")
        owner = model.get_submodule(path)
        tensors.append(
            CoupledTensor(
                name,
                axis,
                tuple(tuple(places[root][name, axis]) for root in roots),
                (name, axis) in coupling.producers,
                owner,
                getattr(owner, attribute).detach(),
            )
        )
    return ChannelGroup(tuple(tensors), tuple(roots))


def _cuts(coupling: Coupling) -> list[tuple[str, int, np.ndarray]]:
    """Returns the tensors of the model with an axis and the set of each index along it."""
    found = [
        (tensor, axis, removable(coupling.unions, channels))
        for (tensor, axis), channels in coupling.axes.items()
    ]
    for tensor, channels in coupling.elements.items():
        sets = removable(coupling.unions, channels)
        for axis in range(sets.ndim):
            others = tuple(i for i in range(sets.ndim) if i != axis)
            low, high = sets.min(axis=others), sets.max(axis=others)
            if np.array_equal(low, high) and len(np.unique(low)) > 1:
                found.append((tensor, axis, low))
    return found
