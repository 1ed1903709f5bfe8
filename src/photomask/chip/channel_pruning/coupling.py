"""Finds out from a float graph which channels must leave together, and which must stay.

Every output channel of a layer is one number (`Unions`). An edge is an array of the edge's shape,
for one sample, in which each element holds the channel that it belongs to, or 0. The arrays follow
from the facts of the operations, so no code here knows an operation, a layer or a model by name:

- An operation that moves elements moves the numbers in the same way.
- Where operands meet, elementwise or in a product, their channels are joined: they can only leave
  together. An operand that is the same for several channels of another one must stay.
- Where an operation mixes several channels, they may leave if zeros change nothing in it, as in the
  sum of a layer. In a norm, an average or a softmax over channels they must stay.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from photomask.chip.channel_pruning.unions import Unions, compact, repeated, varies
from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.model_tensors import ModelView
from photomask.chip.graph.operations import Accumulates, IntegerUse


class Coupling:
    """The channels of a graph.

    Args:
        graph: a captured graph that no pass has changed.

    Attributes:
        graph: the graph.
        unions: which channels must leave together, and which must stay.
        edges: by name of an edge, the channel of each of its elements, for one sample.
        axes: by tensor of the model and axis, the channel of each index.
        elements: by tensor of the model that is added or multiplied as it is, the channel of each
            element.
        producers: the tensors and axes whose indices are the output channels of layers.
    """

    def __init__(self, graph: FloatGraph):
        self.graph = graph
        self.unions = Unions()
        self.edges: dict[str, np.ndarray] = {}
        self.axes: dict[tuple[str, int], np.ndarray] = {}
        self.elements: dict[str, np.ndarray] = {}
        self.producers: set[tuple[str, int]] = set()
        for node in graph.nodes:
            self.edges[node.name] = self._channels_behind(node)
        for name in graph.outputs:
            self.unions.hold(self.edges[name], f"{name!r} is an output of the model")

    def leaving(self, name: str, removed: frozenset[int]) -> np.ndarray:
        """Returns which elements of an edge leave with sets of channels, for one sample."""
        return np.isin(self.unions.roots(compact(self.edges[name])), list(removed))

    def count_kept(self, name: str, removed: frozenset[int], axis: int | None = None) -> int:
        """Returns how many elements of an edge stay, of all or along one axis."""
        leaving = self.leaving(name, removed)
        shape = self.edges[name].shape
        if axis is None:
            repeats = math.prod(shape) // leaving.size
            return math.prod(shape) - repeats * int(leaving.sum())
        others = tuple(i for i in range(leaving.ndim) if i != axis)
        gone = np.all(leaving, axis=others).reshape(-1)
        return shape[axis] - (int(gone.sum()) if len(gone) > 1 else 0)

    def count_cut(self, view: ModelView, axis: int, removed: frozenset[int]) -> int:
        """Returns how many indices leave along an axis of a weight of the model."""
        line = view.line(axis)
        channels = None if line is None else self.axes.get((view.tensor, line[0]))
        if line is None or channels is None:
            return 0
        return int(np.isin(self.unions.roots(channels[line[1].numpy()]), list(removed)).sum())

    def _channels_behind(self, node: Node) -> np.ndarray:
        """Returns the channels of a node's output."""
        operation = node.operation
        operands = [
            self.edges[name]
            for place, name in enumerate(node.inputs)
            if operation.use_of_integers(place) in (None, IntegerUse.MOVES)
        ]
        if operation.moves:
            moved = operation.compute([torch.from_numpy(x.copy()) for x in operands], {})
            return repeated(moved.numpy())
        if operation.accumulates is Accumulates.WEIGHTED:
            return self._behind_layer(node, operands[0])
        found = None
        for place, x in enumerate(operands):
            x = _aligned(node, place, x)
            found = x if found is None else self._met(found, x, node)
        if found is not None:
            found = np.broadcast_to(self._mixed(node, found), node.shape)
        for role, constant in node.constants.items():
            found = self._with_constant(node, role, constant, found)
        if found is None:
            return np.zeros(node.shape, dtype=np.int64)
        return np.broadcast_to(found, node.shape)

    def _met(self, first: np.ndarray, second: np.ndarray, node: Node) -> np.ndarray:
        """Returns the channels of the result where two operands meet, after joining theirs."""
        rank = max(first.ndim, second.ndim)
        first, second = (x.reshape((1,) * (rank - x.ndim) + x.shape) for x in (first, second))
        shape = np.broadcast_shapes(first.shape, second.shape)
        self._join_repeated(first, second, node)
        self._join_repeated(second, first, node)
        free = [bool(_repeated_axes(first, second)), bool(_repeated_axes(second, first))]
        if all(free):
            return np.zeros(shape, dtype=np.int64)
        if any(free):
            return np.broadcast_to(second if free[0] else first, shape)
        together = _small(first, second)
        self.unions.join(
            *together, f"{_named(node)} needs it beside elements that cannot be removed"
        )
        joined = np.where(together[0] == 0, together[1], together[0])
        return np.broadcast_to(joined, shape)

    def _join_repeated(self, x: np.ndarray, other: np.ndarray, node: Node) -> None:
        """Joins or holds the channels of an operand that meets several channels of another one.

        Where the operand has several channels, as scores have heads, each is joined with all those
        that it meets. Where it has one, as a gate for all channels, it is held.
        """
        axes = _repeated_axes(x, other)
        if not axes or not x.any():
            return
        shared = [axis for axis in range(x.ndim) if x.shape[axis] == other.shape[axis]]
        if any(varies(x, axis) for axis in shared):
            reason = f"{_named(node)} needs it beside elements that cannot be removed"
            self.unions.join(*_small(x, other), reason)
        else:
            self.unions.hold(x, f"{_named(node)} uses it for several channels of another edge")

    def _mixed(self, node: Node, x: np.ndarray) -> np.ndarray:
        """Returns the channels of a result that mixes elements along axes, for aligned inputs."""
        operation = node.operation
        first = self.edges[node.inputs[0]]
        before = x.ndim - _aligned(node, 0, first).ndim
        axes = operation.mixed_axes(0, first.shape)
        places = tuple(sorted(before + axis for axis in axes))
        if not places:
            return x
        small = compact(x)
        if any(varies(small, axis) for axis in places):
            others = [axis for axis in range(x.ndim) if axis not in places and varies(small, axis)]
            if others:
                self._join_along(small, places, node)
            else:
                if not operation.ignores_zeros:
                    self.unions.hold(small, f"{_named(node)} mixes it with other channels")
                small = np.zeros_like(small)
        for axis in places:
            small = small.take([0], axis)
        small = np.broadcast_to(
            small, [1 if axis in places else n for axis, n in enumerate(x.shape)]
        )
        return small if small.ndim == len(node.shape) else small.squeeze(places)

    def _join_along(self, x: np.ndarray, axes: Sequence[int], node: Node) -> None:
        """Joins all channels along some axes, for each place on the other axes."""
        first = x
        for axis in axes:
            first = first.take([0], axis)
        reason = f"{_named(node)} mixes it with elements that cannot be removed"
        self.unions.join(np.broadcast_to(first, x.shape), x, reason)

    def _behind_layer(self, node: Node, x: np.ndarray) -> np.ndarray:
        """Returns the output channels of a layer, after joining input channels with columns.

        In a grouped convolution, the channels at the same place of every group leave together, so
        that all groups stay equally large. In a depthwise one, a whole group leaves.
        """
        axis = node.operation.channels_in(len(node.shape))
        small = compact(x)
        others = [i for i in range(x.ndim) if i != axis]
        if any(varies(small, i) for i in others):
            self._join_along(small, others, node)
        for i in others:
            small = small.take([0], i)
        read = np.broadcast_to(small.reshape(-1), (x.shape[axis],))
        weight = node.constants["weight"]
        rows = self._produced(weight, 0)
        if rows is None:
            self.unions.hold(read, f"the weight of {_named(node)} is computed by the model")
            return np.zeros(node.shape, dtype=np.int64)
        inputs = self.graph.constants[weight].shape[1]
        groups = len(read) // inputs
        reason = f"{_named(node)} reads it beside channels that cannot be removed"
        if groups > 1 and inputs == 1:
            self.unions.join(np.repeat(read, len(rows) // groups), rows, reason)
        else:
            columns = self._line(weight, 1)
            for group in read.reshape(groups, inputs):
                if columns is None:
                    self.unions.hold(group, f"the weight of {_named(node)} is a reshaped tensor")
                else:
                    self.unions.join(group, columns[1], reason)
            outputs = rows.reshape(groups, -1)
            for group in outputs[1:]:
                self.unions.join(outputs[0], group, reason)
        shape = [1] * len(node.shape)
        shape[axis] = len(rows)
        found = rows.reshape(shape)
        biased = self._with_constant(node, "bias", node.constants["bias"], found)
        return np.broadcast_to(found if biased is None else biased, node.shape)

    def _with_constant(
        self, node: Node, role: str, constant: str, found: np.ndarray | None
    ) -> np.ndarray | None:
        """Returns a result's channels after joining them with those of a constant."""
        made = self.graph.made_of.get(constant)
        shape = self.graph.constants[constant].shape
        axes = node.operation.constant_axes(role, len(shape), len(node.shape))
        places = [1] * len(node.shape)
        for axis, size in zip(axes, shape, strict=True):
            if axis is not None:
                places[axis] = size
        parts = [None] if made is None else made
        for view in parts:
            if view is None:
                channels = np.zeros(places, dtype=np.int64)
            else:
                channels = self._of_constant(view, axes, constant).reshape(places)
            found = channels if found is None else self._met(found, channels, node)
        return found

    def _of_constant(
        self, view: ModelView, axes: Sequence[int | None], constant: str
    ) -> np.ndarray:
        """Returns the channel of each element of a constant along the axes of the result."""
        if None not in axes:
            return self._elements_of(view)
        (axis,) = (i for i, place in enumerate(axes) if place is not None)
        found = self._produced(constant, axis)
        return np.zeros(view.shape[axis], dtype=np.int64) if found is None else found

    def _produced(self, constant: str, axis: int) -> np.ndarray | None:
        """Returns the channel that each row of a weight, or column of a table, produces."""
        line = self._line(constant, axis)
        if line is None:
            return None
        self.producers.add(line[0])
        return line[1]

    def _elements_of(self, view: ModelView) -> np.ndarray:
        if len(view.tensor_shape) == 1:
            whole = self._whole_axis(view, 0)
        elif view.tensor in self.elements:
            whole = self.elements[view.tensor]
        else:
            whole = self.unions.new(math.prod(view.tensor_shape)).reshape(view.tensor_shape)
            self.elements[view.tensor] = whole
        return whole.reshape(-1)[view.elements().numpy()]

    def _line(self, constant: str, axis: int) -> tuple[tuple[str, int], np.ndarray] | None:
        """Returns what an axis of a constant is in the model, and its channels; or None."""
        made = self.graph.made_of.get(constant)
        if made is None or len(made) != 1:
            return None
        line = made[0].line(axis)
        if line is None:
            return None
        key = made[0].tensor, line[0]
        return key, self._whole_axis(made[0], line[0])[line[1].numpy()]

    def _whole_axis(self, view: ModelView, axis: int) -> np.ndarray:
        key = view.tensor, axis
        if key not in self.axes:
            self.axes[key] = self.unions.new(view.tensor_shape[axis])
        return self.axes[key]


def _small(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns arrays broadcast to one shape, without axes along which both repeat elements."""
    shape = np.broadcast_shapes(first.shape, second.shape)
    one, other = np.broadcast_to(first, shape), np.broadcast_to(second, shape)
    index = tuple(
        slice(0, 1) if one.strides[axis] == other.strides[axis] == 0 else slice(None)
        for axis in range(len(shape))
    )
    return one[index], other[index]


def _repeated_axes(x: np.ndarray, other: np.ndarray) -> list[int]:
    """Returns the axes along which one element of an operand meets several of another one's."""
    return [
        axis
        for axis in range(x.ndim)
        if x.shape[axis] == 1 and other.shape[axis] > 1 and varies(other, axis)
    ]


def _aligned(node: Node, place: int, x: np.ndarray) -> np.ndarray:
    """Returns an operand with the axes that all operands share (`Operation.aligned`)."""
    shape = node.operation.aligned(place, torch.empty(x.shape, device="meta")).shape
    small = node.operation.aligned(place, torch.from_numpy(compact(x).copy())).numpy()
    return np.broadcast_to(small, tuple(shape))


def _named(node: Node) -> str:
    return f"{node.name!r} ({node.operation.kind}, {node.source})"
