"""Defines the float graph, which is a captured model as nodes in the order of computation."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from photomask.chip.graph.model_tensors import Made
from photomask.chip.graph.operations import Clamp, Input, Operation


@dataclass(frozen=True)
class Node:
    """An operation applied to edges; the output edge has the name of the node."""

    name: str
    operation: Operation
    inputs: tuple[str, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)
    """The names of constant tensors by role."""
    shape: tuple[int, ...] = ()
    """The shape of the output for one sample, including the batch axis of size 1."""
    source: str = ""
    """The file and line of the model's code."""
    clamp: Clamp | None = None
    """The ReLU or clamp that was fused into this node, or None."""


@dataclass(frozen=True)
class Origin:
    """The tensor of the model that a constant is, possibly with permuted axes."""

    tensor: str
    """The name of the first constant that is the same tensor."""
    order: tuple[int, ...]
    """For each axis, the corresponding axis of that constant."""


@dataclass(frozen=True)
class View:
    """A constant that is another constant with permuted axes."""

    constant: str
    order: tuple[int, ...]

    def of(self, tensor: Tensor) -> Tensor:
        """Returns the view of a tensor, which shares memory with the tensor."""
        return tensor.permute(self.order)


@dataclass(frozen=True)
class FloatGraph:
    """Nodes in the order of computation, and the constants that they read."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor]
    """The constant tensors by name; a tensor that several nodes read occurs once."""
    views: Mapping[str, View] = field(default_factory=dict)
    """The constants that are views of others."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """The constants' tensors of the model, until `share_constants` gives equal ones one name."""
    made_of: Made = field(default_factory=dict)
    """The model's tensors that each constant was made of, until passes change constants."""
    parted: tuple[tuple[str, ...], ...] = ()
    """Groups of constants that were one tensor, until different norms were folded into them."""
    norm_factors: Mapping[str, Tensor] = field(default_factory=dict)
    """By name of a weight: the size of the factor that folding gave each of its outputs."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the input nodes."""
        return tuple(node.name for node in self.nodes if isinstance(node.operation, Input))

    @property
    def by_name(self) -> dict[str, Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def uses(self) -> dict[str, tuple[tuple[Node, str], ...]]:
        """By name of a tensor, the nodes that have it as a constant, with the role."""
        found: dict[str, tuple[tuple[Node, str], ...]] = {}
        for node in self.nodes:
            for role, name in node.constants.items():
                tensor = self.tensor_of(name)
                found[tensor] = (*found.get(tensor, ()), (node, role))
        return found

    def users(self) -> dict[str, list[str]]:
        """Returns the readers of each edge; an output of the graph counts as a reader."""
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
        """Computes in float, and yields every node with its output.

        Args:
            inputs: one tensor for each input, with the batch at axis 0.
            constants_of: returns a node's constant tensors by role; None for those of the graph.
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
        """Returns the outputs, computed in float."""
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
    """Returns a node's output, computed in float, with the fused clamp applied."""
    return clamped(node, node.operation.compute(inputs, constants))


def clamped(node: Node, result: Tensor) -> Tensor:
    """Returns a result with the clamp applied that was fused into its node, if there is one."""
    return result if node.clamp is None else node.clamp.compute([result], {})


def largest_difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Returns the largest `max |x - y| / max |y|` of the pairs.

    It is infinite for pairs of different shapes and for NaN.
    """
    return max((_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _difference(x: Tensor, y: Tensor) -> float:
    if x.shape != y.shape:
        return math.inf
    x, y = x.double(), y.double()
    largest = y.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    difference = float((x - y).abs().max() / largest)
    return math.inf if math.isnan(difference) else difference
