"""Finds constants that are one tensor of the model, and keeps them as one tensor."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations

import torch
from torch import Tensor

from photomask.chip.graph.float_graph import FloatGraph, Origin, View

MOST_AXES = 4
"""Constants with more axes are not compared with permuted axes."""


def origins_of(given: Mapping[str, Tensor]) -> dict[str, Origin]:
    """Finds constants that share memory, such as a weight and its transpose.

    Args:
        given: the tensors of the model by name of the constant.

    Returns:
        For each constant whose elements are contiguous in some order of axes: the first constant
        in the same memory, and the order of its axes.
    """
    first: dict[tuple[int, int, int], str] = {}
    origins: dict[str, Origin] = {}
    for name, tensor in given.items():
        if tensor.numel() < 2 or not _is_dense(tensor):
            continue
        place = tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()), tensor.numel()
        base = first.setdefault(place, name)
        order = _order(given[base], tensor)
        if order is not None:
            origins[name] = Origin(base, order)
    return origins


def _is_dense(tensor: Tensor) -> bool:
    """Tells whether a tensor's elements fill its memory without gaps or repetitions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _order(base: Tensor, tensor: Tensor) -> tuple[int, ...] | None:
    """Returns the order of a tensor's axes in another view of the same memory, or None."""
    if tensor.ndim != base.ndim:
        return None
    if tensor.shape == base.shape and tensor.stride() == base.stride():
        return tuple(range(base.ndim))
    if base.ndim > MOST_AXES:
        return None
    for order in permutations(range(base.ndim)):
        moved = base.permute(order)
        if moved.shape == tensor.shape and moved.stride() == tensor.stride():
            return order
    return None


def share_constants(graph: FloatGraph) -> FloatGraph:
    """Returns a graph in which constants that are one tensor of the model have one name.

    A constant with permuted axes becomes a view of the first one. Constants that differ after a
    pass, such as a weight into which two batch norms were folded, are listed in `parted`.
    """
    names: dict[str, str] = {}
    views = dict(graph.views)
    first: dict[str, str] = {}
    parted: dict[str, list[str]] = {}
    for name in _used(graph):
        origin = graph.origins.get(name)
        if origin is None or name in names:
            continue
        base = first.setdefault(origin.tensor, name)
        order = _between(graph.origins[base], origin)
        if not _is_view(graph.constants[name], graph.constants[base], order):
            parted.setdefault(base, [base]).append(name)
            continue
        if order == tuple(range(len(order))):
            names[name] = base
        else:
            views[name] = View(base, order)
    nodes = tuple(
        replace(node, constants={role: names.get(n, n) for role, n in node.constants.items()})
        for node in graph.nodes
    )
    held = {n: t for n, t in graph.constants.items() if names.get(n, n) == n and n not in views}
    apart = tuple(tuple(dict.fromkeys(group)) for group in parted.values())
    return replace(
        graph, nodes=nodes, constants=held, views=views, origins={}, made_of={}, parted=apart
    )


def _used(graph: FloatGraph) -> list[str]:
    """Returns the names of constants in the order in which nodes use them."""
    return [name for node in graph.nodes for name in node.constants.values()]


def _is_view(tensor: Tensor, base: Tensor, order: tuple[int, ...]) -> bool:
    """Tells whether a constant still equals another one with permuted axes."""
    if order == tuple(range(len(order))):  # vectors that became filters have more axes than `order`
        return torch.equal(tensor, base)
    return base.ndim == len(order) and torch.equal(tensor, base.permute(order))


def _between(base: Origin, other: Origin) -> tuple[int, ...]:
    """Returns the order of axes that turns one view of a tensor into another."""
    return tuple(base.order.index(axis) for axis in other.order)
