"""Runs a model whose channels were cut, and compares it with the original without these channels.

Removing a channel must equal zeroing it wherever it is read. The original's graph computes that in
float64, and the cut model must give the same outputs. Code of the model that fixes a size or an
index, such as `reshape(n, 8, 16)`, fails here or gives other numbers. The trial then finds the
channels that this code handles.
"""

import traceback
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from photomask.chip.channel_pruning.closing import removable
from photomask.chip.channel_pruning.coupling import Coupling
from photomask.chip.data import Data
from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.capture import capture_with_batches
from photomask.chip.graph.float_graph import compute, largest_difference
from photomask.chip.graph.float_model import FloatModel, flat
from photomask.errors import CaptureError, PhotomaskError

TOLERANCE = 1e-5
"""The largest relative difference that is allowed.

Both compute in float64. The graph's constants, such as folded batch norms, are rounded to float32.
"""


@dataclass(frozen=True)
class Failure:
    """What went wrong in a trial.

    Attributes:
        channels: the sets of channels that the failing code handles.
        reason: the place and the message.
    """

    channels: frozenset[int]
    reason: str


def try_out(
    model: nn.Module,
    coupling: Coupling,
    removed: frozenset[int],
    zeroed: frozenset[int],
    batch: Sequence[Tensor],
    names: Sequence[str],
) -> Failure | None:
    """Compares a model whose channels were cut with the original graph; None if they agree.

    Args:
        model: the model without the channels.
        coupling: the channels of the original model.
        removed: the sets that were cut out.
        zeroed: the sets that count as zero in the original.
        batch: inputs for the comparison.
        names: the names of the inputs, where they were given.
    """
    graph = coupling.graph
    frozen = FloatModel(model, names, device="cpu")
    frozen.module.double()
    wide = [_wide(x) for x in batch]
    running: list[str] = []
    try:
        with torch.no_grad(), _float64_by_default(), _running_modules(frozen.module, running):
            args, kwargs = frozen.arguments([x.clone() for x in wide])
            outputs = flat(frozen.module(*args, **kwargs))
    except Exception as error:  # noqa: BLE001 - the code of the model may raise anything
        nodes = _nodes_at(graph, error, running)
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        return _failure(coupling, removed, nodes, f"the model's code fails without it: {said}")
    expected = _zeroed(coupling, zeroed, wide)
    if largest_difference(outputs, [expected[name] for name in graph.outputs]) <= TOLERANCE:
        return None
    return _failure(
        coupling,
        removed,
        [_first_difference(model, coupling, removed, as_example(batch, names), expected)],
        "the model computes other numbers without it than with zeros in its place",
    )


def as_example(batch: Sequence[Tensor], names: Sequence[str]) -> Data:
    """Returns inputs as an example: by name where names were given, otherwise in order."""
    return dict(zip(names, batch, strict=True)) if names else tuple(batch)


def _failure(
    coupling: Coupling, removed: frozenset[int], nodes: Iterable[Node], reason: str
) -> Failure:
    nodes = list(nodes)
    edges = {name for node in nodes for name in (node.name, *node.inputs)}
    found = {
        int(root)
        for name in edges
        for root in np.unique(removable(coupling.unions, coupling.edges[name]))
    }
    place = f" ({nodes[0].source})" if nodes else ""
    return Failure(frozenset(found) & removed, reason + place)


def _zeroed(
    coupling: Coupling, removed: frozenset[int], batch: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Returns all edges of the original graph, with zeros wherever removed channels are read."""
    graph = coupling.graph
    values = dict(zip(graph.inputs, batch, strict=True))
    for node in graph.nodes:
        if node.name in values:
            continue
        operands = [values[name] for name in node.inputs]
        if node.operation.ignores_zeros:
            operands = [
                x * ~torch.from_numpy(_leaving(coupling, removed, name, len(x)))
                for x, name in zip(operands, node.inputs, strict=True)
            ]
        constants = {role: _wide(value) for role, value in graph.constants_of(node).items()}
        values[node.name] = compute(node, operands, constants)
    return values


def _leaving(coupling: Coupling, removed: frozenset[int], name: str, length: int) -> np.ndarray:
    """Returns which elements of an edge leave; its axis 0 is 1 or the length of the batch's."""
    leaving = coupling.leaving(name, removed)
    rows = len(coupling.edges[name])
    if rows == 1 or len(leaving) == 1:
        return leaving
    return np.tile(leaving, (length // rows, *(1,) * (leaving.ndim - 1)))


def _first_difference(
    model: nn.Module,
    coupling: Coupling,
    removed: frozenset[int],
    example: Data,
    expected: dict[str, Tensor],
) -> Node:
    """Returns the first node whose values differ from the original's without removed channels."""
    graph = coupling.graph
    try:
        after, (batch, _) = capture_with_batches(model, example)
    except PhotomaskError as error:
        raise CaptureError(
            f"the model cannot be captured without the removed channels: {error}"
        ) from error
    constants = {
        node.name: {role: _wide(value) for role, value in after.constants_of(node).items()}
        for node in after.nodes
    }
    run = after.run([_wide(x) for x in batch], lambda node: constants[node.name])
    last = graph.nodes[-1]
    for node, (other, value) in zip(graph.nodes, run, strict=False):
        last = node
        before = expected[node.name]
        kept = _kept(before, _leaving(coupling, removed, node.name, len(before)))
        if type(other.operation) is not type(node.operation) or not (
            largest_difference([value], [kept]) <= TOLERANCE
        ):
            return node
    return last


def _kept(value: Tensor, leaving: np.ndarray) -> Tensor:
    """Returns an edge without the slices that leave."""
    for axis in range(leaving.ndim):
        others = tuple(i for i in range(leaving.ndim) if i != axis)
        whole = leaving.all(axis=others)
        if whole.any() and not whole.all():
            return value.index_select(axis, torch.from_numpy(np.flatnonzero(~whole)))
    return value


def _nodes_at(graph: FloatGraph, error: Exception, running: Sequence[str]) -> list[Node]:
    """Returns the nodes of the code that raised an error, from its innermost line outwards."""
    frames = traceback.extract_tb(error.__traceback__)
    found: list[Node] = []
    for frame in reversed(frames):
        place = f"{frame.filename}:{frame.lineno}"
        if found := [node for node in graph.nodes if node.source == place]:
            break
    path = running[-1] if running else ""
    inside = [
        node
        for node in found
        if node.name == path or node.name.startswith((f"{path}.", f"{path}_"))
    ]
    return inside or found


@contextmanager
def _running_modules(model: nn.Module, running: list[str]):
    """Keeps the names of the modules that are running, the innermost last, also after an error."""
    handles = []

    def leave(*_: object) -> None:
        running.pop()

    for name, module in model.named_modules():
        enter = partial(_enter, running, name)
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(running: list[str], name: str, *_: object) -> None:
    running.append(name)


@contextmanager
def _float64_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
