"""Joins channels until every set of them can be cut out of every tensor along one axis.

The channels that leave must be whole slices of each tensor: what stays is a tensor again. Where a
reshape splits or merges channels, one channel alone may be no slice, as one feature of one
attention head. Then all channels of a slice leave together, along the axis that leaves the most
sets.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from photomask.chip.channel_pruning.coupling import Coupling
from photomask.chip.channel_pruning.unions import Unions, compact, varies


def close(coupling: Coupling) -> None:
    """Joins and holds channels in place until nothing changes.

    A set that is all that a tensor has is held, because the tensor would be empty.
    """
    unions = coupling.unions
    for name in coupling.elements:
        for (tensor, _), channels in coupling.axes.items():
            if tensor == name:
                unions.hold(channels, f"{name!r} is both a weight and an operand")
                unions.hold(coupling.elements[name], f"{name!r} is both a weight and an operand")
    tensors = [(name, compact(x)) for name, x in _tensors(coupling)]
    before = None
    while before != (state := _state(unions, tensors)):
        before = state
        for name, channels in tensors:
            _close_one(unions, name, channels)


def removable(unions: Unions, channels: np.ndarray) -> np.ndarray:
    """Returns the representatives of the channels' sets, and 0 for those that must stay."""
    roots = unions.roots(channels)
    held = np.fromiter(unions.reasons, dtype=np.int64, count=len(unions.reasons))
    return np.where(np.isin(roots, held), 0, roots)


def _tensors(coupling: Coupling) -> Iterator[tuple[str, np.ndarray]]:
    yield from coupling.edges.items()
    yield from coupling.elements.items()
    for (tensor, _), channels in coupling.axes.items():
        yield tensor, channels


def _state(unions: Unions, tensors: Iterable[tuple[str, np.ndarray]]) -> tuple[int, int]:
    found = {int(root) for _, x in tensors for root in np.unique(unions.roots(x))}
    return len(found), len(unions.reasons)


def _close_one(unions: Unions, name: str, channels: np.ndarray) -> None:
    """Joins the channels of one tensor where they are no whole slices."""
    found = removable(unions, channels)
    axes = [axis for axis in range(found.ndim) if varies(found, axis)]
    if not axes:
        unions.hold(found, f"{name!r} has no other channel")
    if len(axes) < 2:
        return
    slices = {axis: _slices(found, axis) for axis in axes}
    best = max(axes, key=lambda axis: _sets_left(slices[axis]))
    for members in slices[best]:
        first = np.full_like(members, members[0])
        unions.join(first, members, f"{name!r} mixes it with elements that cannot be removed")


def _slices(channels: np.ndarray, axis: int) -> list[np.ndarray]:
    """Returns the different channels in each slice along an axis."""
    rows = np.moveaxis(channels, axis, 0).reshape(channels.shape[axis], -1)
    return [np.unique(row) for row in rows]


def _sets_left(slices: list[np.ndarray]) -> int:
    """Returns how many sets could leave after the channels of each slice were joined."""
    unions = Unions()
    numbers = np.unique(np.concatenate(slices))
    unions.new(len(numbers) + 1)
    members = [np.searchsorted(numbers, row) + 1 for row in slices]
    for row, named in zip(members, slices, strict=True):
        unions.join(np.full_like(row, row[0]), row, "")
        if named[0] == 0:
            unions.hold(row, "it meets no channel")
    used = np.unique(np.concatenate(members))
    return len({int(root) for root in unions.roots(used)} - set(unions.reasons))
