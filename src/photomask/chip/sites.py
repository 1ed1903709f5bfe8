"""Finds the sites of a graph: the places where a recipe may put quantizers."""

from collections.abc import Mapping
from dataclasses import dataclass

from photomask.chip.graph import FloatGraph
from photomask.chip.graph.operations import (
    Add,
    Concatenate,
    Constant,
    Normalize,
    Tokens,
)
from photomask.chip.graph.scales import scale_owners
from photomask.chip.recipe import Site
from photomask.errors import UsageError


@dataclass(frozen=True)
class Survey:
    """A graph and the places in it where a recipe may put quantizers.

    Attributes:
        graph: the simplified float graph.
        states: by name of an input that carries state, the index of the output that updates it.
        owners: by edge, the node whose quantizer gives the edge its scale.
        sites: the places, in the order of computation.
    """

    graph: FloatGraph
    states: Mapping[str, int]
    owners: Mapping[str, str]
    sites: tuple[Site, ...]


def survey(graph: FloatGraph, states: Mapping[str, int] | None = None) -> Survey:
    """Finds the places where a recipe may put quantizers.

    Args:
        graph: the simplified float graph.
        states: by name of an input that carries state, the index of the output that updates it.
    """
    states = dict(states or {})
    owners = scale_owners(graph, states)
    return Survey(graph, states, owners, tuple(_sites(graph, states, owners)))


def _sites(graph: FloatGraph, states: Mapping[str, int], owners: Mapping[str, str]) -> list[Site]:
    carried = set(states.values())
    results = [name for at, name in enumerate(graph.outputs) if at not in carried]
    outputs = {owners[name] for name in results}
    residual = _residual(graph, owners)
    multiplied = {
        owners[name] for node in graph.nodes if node.operation.multiplies for name in node.inputs
    }
    return [
        Site(
            name=node.name,
            operator=node.operation.kind,
            has_weight="weight" in node.constants,
            is_output=node.name in outputs,
            is_residual=node.name in residual,
            is_multiplied=node.name in multiplied,
            reads=tuple(dict.fromkeys(owners[name] for name in node.inputs)),
            takes_factors=node.operation.channel_axis == -1,
        )
        for node in graph.nodes
        if node.operation.decides_scale
    ]


def _residual(graph: FloatGraph, owners: Mapping[str, str]) -> set[str]:
    """Returns the edges of the residual stream: the sums, and the edges that they add.

    A sum of activations belongs to it. The sum of an activation and a constant belongs to it only
    where another sum or a norm reads the result: position embeddings qualify, a bias of attention
    scores does not. Where such a sum adds a concatenation, as of a class token and patches, the
    edges that are concatenated belong to the stream too.
    """
    constants = {node.name for node in graph.nodes if isinstance(node.operation, Constant)}
    read = {
        owners[name]
        for node in graph.nodes
        if isinstance(node.operation, (Add, Normalize))
        for name in node.inputs
    }
    sums = [
        node
        for node in graph.nodes
        if isinstance(node.operation, Add)
        and (node.name in read or not constants & {owners[name] for name in node.inputs})
    ]
    stream = {node.name for node in sums} | {owners[name] for node in sums for name in node.inputs}
    for node in reversed(graph.nodes):
        if isinstance(node.operation, Concatenate) and node.name in stream:
            stream |= {owners[name] for name in node.inputs}
    return stream


def check_states(graph: FloatGraph, states: Mapping[str, int]) -> None:
    """Refuses states that are no floating-point inputs, or whose outputs do not exist.

    Raises:
        UsageError: a state or its output does not exist; the message says what exists.
    """
    real = [name for name in graph.inputs if not isinstance(graph.by_name[name].operation, Tokens)]
    for name, output in states.items():
        if name not in real:
            raise UsageError(
                f"a state must be a floating-point input of the model, got {name!r}; the model's "
                f"floating-point inputs are {', '.join(real)}"
            )
        if not 0 <= output < len(graph.outputs):
            raise UsageError(
                f"the state {name!r} carries output {output}, which does not exist; the model has "
                f"{len(graph.outputs)} outputs, counted from 0"
            )
