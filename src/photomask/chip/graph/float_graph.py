"""The float graph: a captured model as a list of nodes, in the order of computation."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from photomask.chip.graph.operations import Clamp, Input, Operation


@dataclass(frozen=True)
class Node:
    """One operation applied to edges; its output edge has the node's name."""

    name: str
    operation: Operation
    inputs: tuple[str, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)
    """Names of constant tensors by role."""
    shape: tuple[int, ...] = ()
    """One sample's output shape, the batch axis (1) included."""
    source: str = ""
    """File and line of the model's code."""
    clamp: Clamp | None = None
    """A ReLU or clamp that was fused into this node."""


@dataclass(frozen=True)
class Origin:
    """Which tensor of the model a constant is."""

    tensor: str
    """Name of the first constant that is this tensor."""
    order: tuple[int, ...]
    """Which axis of that constant each axis is."""


@dataclass(frozen=True)
class View:
    """A constant that is another one with its axes in another order."""

    constant: str
    order: tuple[int, ...]

    def of(self, tensor: Tensor) -> Tensor:
        """Returns the view; what is written there is written to the tensor."""
        return tensor.permute(self.order)


@dataclass(frozen=True)
class FloatGraph:
    """Nodes in the order of computation and the constants they read."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor]
    """Every tensor once, whatever nodes read it."""
    views: Mapping[str, View] = field(default_factory=dict)
    """Constants that are views of others."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Which constants are one tensor of the model, until `share_constants` gives them one name."""
    parted: tuple[tuple[str, ...], ...] = ()
    """Constants that were one tensor of the model, and differ since something was folded in."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input nodes."""
        return tuple(node.name for node in self.nodes if isinstance(node.operation, Input))

    @property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def uses(self) -> dict[str, tuple[tuple[Node, str], ...]]:
        """By the name of a tensor, the nodes that have it as a constant, and in which role."""
        found: dict[str, tuple[tuple[Node, str], ...]] = {}
        for node in self.nodes:
            for role, name in node.constants.items():
                tensor = self.tensor_of(name)
                found[tensor] = (*found.get(tensor, ()), (node, role))
        return found

    def users(self) -> dict[str, list[str]]:
        """Returns the nodes that read each edge; an output of the graph counts as a reader."""
        readers: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node.name)
        for name in self.outputs:
            readers[name].append("(output)")
        return readers

    def constants_of(self, node: Node) -> dict[str, Tensor]:
        """Returns a node's constant tensors by role."""
        return {role: self.constant(name) for role, name in node.constants.items()}

    def constant(self, name: str) -> Tensor:
        """Returns a constant tensor by its name."""
        view = self.views.get(name)
        return self.constants[name] if view is None else view.of(self.constants[view.constant])

    def tensor_of(self, name: str) -> str:
        """Returns the name of the tensor that a constant is, or is a view of."""
        view = self.views.get(name)
        return name if view is None else view.constant

    def run(
        self,
        inputs: Sequence[Tensor],
        constants_of: Callable[[Node], Mapping[str, Tensor]] | None = None,
    ) -> Iterator[tuple[Node, Tensor]]:
        """Computes in float; yields every node with its output.

        Args:
            inputs: one tensor for each input, batch first.
            constants_of: gives a node's constant tensors by role; the graph's own if None.
        """
        constants_of = constants_of or self.constants_of
        values = dict(zip(self.inputs, inputs, strict=True))
        remaining = {name: len(readers) for name, readers in self.users().items()}
        for node in self.nodes:
            if not isinstance(node.operation, Input):
                operands = [values[name] for name in node.inputs]
                values[node.name] = compute(node, operands, constants_of(node))
            yield node, values[node.name]
            for name in node.inputs:
                remaining[name] -= 1
                if not remaining[name]:
                    values.pop(name, None)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs, in float."""
        found = {node.name: value for node, value in self.run(inputs) if node.name in self.outputs}
        return tuple(found[name] for name in self.outputs)

    def pruned(self) -> "FloatGraph":
        """Returns the graph without nodes and constants that no output needs."""
        needed = set(self.outputs)
        for node in reversed(self.nodes):
            if node.name in needed or isinstance(node.operation, Input):
                needed |= {node.name, *node.inputs}
        nodes = tuple(node for node in self.nodes if node.name in needed)
        used = {name for node in nodes for name in node.constants.values()}
        used |= {view.constant for name, view in self.views.items() if name in used}
        return replace(
            self, nodes=nodes, constants={n: t for n, t in self.constants.items() if n in used}
        )


def compute(node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    """Computes one node in float, its fused clamp included."""
    return clamped(node, node.operation.compute(inputs, constants))


def clamped(node: Node, result: Tensor) -> Tensor:
    """Returns a result inside the bounds of the clamp that was fused into its node."""
    return result if node.clamp is None else node.clamp.compute([result], {})


def largest_difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Returns the largest `max |x - y| / max |y|` of the pairs; infinite where it is none."""
    return max((_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _difference(x: Tensor, y: Tensor) -> float:
    if x.shape != y.shape:
        return math.inf
    x, y = x.double(), y.double()
    largest = y.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    difference = float((x - y).abs().max() / largest)
    return math.inf if math.isnan(difference) else difference
