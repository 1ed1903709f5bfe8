"""Builds a float graph from a traced model; defines the values and calls that lowerings get."""

import math
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import Node as TracedNode

from photomask.chip.graph.float_graph import Node
from photomask.chip.graph.operations import (
    Constant,
    Input,
    IntegerUse,
    Operation,
    Tokens,
)

TORCH_FOLDER = os.path.dirname(torch.__file__)


class EdgeName(str):
    """The name of an edge, as a type that differs from string arguments such as padding modes."""

    __slots__ = ()


@dataclass(frozen=True)
class BatchBehind:
    """An edge whose tensor in the model has the batch at an axis other than 0.

    Attributes:
        edge: the edge with the same values, with the batch as axis 0 and the other axes in the
            model's order.
        axis: the axis of the batch in the model.
        outer: the number of elements of a sample that the model's axis holds before the batch, such
            as the positions of `positions * samples` rows. Where it is above 1, these elements are
            an axis of the edge.
    """

    edge: EdgeName
    axis: int
    outer: int = 1


@dataclass(frozen=True)
class Visible:
    """A mask: a softmax uses the elements where an edge is not 0 and a constant is true.

    Attributes:
        edge: an integer input.
        constant: a boolean tensor that broadcasts with the edge.
        form: the form of the mask in the model at this point: true where elements are visible
            (`seen`), true where they are hidden (`hidden`), the same as numbers 1 and 0
            (`one_seen`, `one_hidden`), or numbers that are added to scores, 0 where visible
            (`added`).
    """

    edge: EdgeName
    constant: Tensor
    form: Literal["seen", "hidden", "one_seen", "one_hidden", "added"] = "seen"


@dataclass(frozen=True)
class Masked:
    """Scores with a mask; only a softmax may read them.

    Attributes:
        scores: the edge with all scores.
        edge: an integer input that is 0 where scores are hidden, or None.
        seen: a boolean tensor for one sample that is false where scores are hidden, or None.
        view: the shape for one sample that the softmax's output is reshaped to, where the model
            reshapes the masked scores; otherwise None.
    """

    scores: EdgeName
    edge: EdgeName | None = None
    seen: Tensor | None = None
    view: tuple[int, ...] | None = None


Value = EdgeName | BatchBehind | Visible | Masked | Tensor | tuple["Value", ...]
"""The value of a traced node: an edge, a mask, a constant tensor, or several of them."""


class CannotLower(Exception):
    """Raised by a lowering for a call that no float operation expresses; the message says why."""


@dataclass
class Call:
    """One traced operator call, as its lowering gets it."""

    builder: "Builder"
    traced: TracedNode
    arguments: dict[str, object]
    """The arguments by name of the operator's schema, with defaults, and nodes as values."""
    moved_shape: tuple[int, ...] | None = None
    """The result's shape for one sample with the batch as axis 0, if the model has it elsewhere."""

    def __getitem__(self, name: str) -> object:
        return self.arguments[name]

    def get(self, name: str, default: object = None) -> object:
        """Returns an argument, or the default where the schema does not have it."""
        return self.arguments.get(name, default)

    def edge(self, name: str) -> EdgeName:
        """Returns an argument as an edge; a constant tensor becomes a constant node."""
        return self.builder.as_edge(self.arguments[name], self)

    def constant(self, name: str) -> Tensor:
        """Returns an argument that must be a constant tensor."""
        value = self.arguments[name]
        if not isinstance(value, Tensor):
            raise CannotLower(f"its {name} depends on the input, but must be constant")
        return value

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor argument for one sample."""
        value = self.arguments[name]
        if isinstance(value, Tensor):
            return tuple(value.shape)
        if not isinstance(value, EdgeName):
            raise CannotLower(f"its {name} must be one tensor")
        return self.builder.shapes[value]

    @property
    def result_shape(self) -> tuple[int, ...]:
        """The shape of the (first) result for one sample."""
        if self.moved_shape is not None:
            return self.moved_shape
        return self.builder.sample_shape(self.traced)

    def emit(
        self,
        operation: Operation,
        inputs: Sequence[str],
        constants: dict[str, Tensor] | None = None,
        made_of: Mapping[str, Sequence[Tensor]] | None = None,
    ) -> EdgeName:
        """Adds a node, and returns its edge.

        Args:
            operation: the operation of the node.
            inputs: the edges that it reads.
            constants: its constant tensors by role.
            made_of: by role, the tensors from which a lowering computed a constant elementwise. A
                constant that is not listed is a tensor that the model gave.
        """
        return self.builder.emit(self.traced, operation, inputs, constants or {}, made_of or {})


Lowering = Callable[[Call], Value]


@dataclass
class Builder:
    """Collects the nodes and constants of a float graph while the traced graph is lowered."""

    batch: int
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    values: dict[TracedNode, Value] = field(default_factory=dict)
    given: dict[str, Tensor] = field(default_factory=dict)
    """The constants as tensors of the model, before conversion."""
    made_of: dict[str, Sequence[Tensor]] = field(default_factory=dict)
    """The tensors that each constant is, or was computed from."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rows: set[str] = field(default_factory=set)
    """The edges that hold integers: row indices of tables, or masks."""
    evaluated: dict[Hashable, Tensor] = field(default_factory=dict)
    """The results of operators on constant tensors only, by operator and arguments."""

    def sample_shape(self, traced: TracedNode) -> tuple[int, ...]:
        """Returns the shape of a traced node's (first) result for one sample.

        Raises:
            CannotLower: the result is no tensor, or axis 0 is no multiple of the batch.
        """
        value = traced.meta.get("val")
        if isinstance(value, (tuple, list)):
            value = value[0]
        if not isinstance(value, Tensor):
            raise CannotLower("its result must be a tensor")
        if value.ndim == 0 or value.shape[0] % self.batch:
            raise CannotLower(
                f"its result of shape {tuple(value.shape)} has lost the batch axis (batch "
                f"{self.batch}); operators must treat samples independently"
            )
        return (value.shape[0] // self.batch, *value.shape[1:])

    def emit(
        self,
        traced: TracedNode,
        operation: Operation,
        inputs: Sequence[str],
        constants: dict[str, Tensor],
        made_of: Mapping[str, Sequence[Tensor]] | None = None,
    ) -> EdgeName:
        """Adds a node, and returns its edge; meta tensors of one sample give its shape.

        Raises:
            CannotLower: the operation does not support an input or its result.
        """
        if any(
            name in self.rows and operation.use_of_integers(position) is None
            for position, name in enumerate(inputs)
        ):
            raise CannotLower(
                "it computes with an integer input, which may only be an index of a table's rows "
                "or a mask"
            )
        name = self._unique(self._path(traced, operation))
        keys = {role: f"{name}.{role}" for role in constants}
        self.given |= {keys[role]: value.detach() for role, value in constants.items()}
        known = made_of or {}
        self.made_of |= {keys[role]: known.get(role, (given,)) for role, given in constants.items()}
        self.constants |= {
            keys[role]: value.detach().to(torch.float32).contiguous()
            for role, value in constants.items()
        }
        if isinstance(operation, Input):
            shape = self.sample_shape(traced)
        else:
            with torch.device("meta"):
                operands = [torch.empty(self.shapes[name]) for name in inputs]
            meta = {role: value.to("meta") for role, value in constants.items()}
            shape = tuple(operation.compute(operands, meta).shape)
        if math.prod(shape) and not all(math.prod(self.shapes[name]) for name in inputs):
            raise CannotLower("it computes with a tensor that has no elements")
        if operation.takes_clamp and len(shape) == 1:
            raise CannotLower("its result is one number for each sample; keep an axis for it")
        self.shapes[name] = shape
        moves = operation.use_of_integers(0) is IntegerUse.MOVES
        if isinstance(operation, Tokens) or (moves and inputs[0] in self.rows):
            self.rows.add(name)
        edges = tuple(map(str, inputs))  # the compiler of PyTorch 2.11 needs plain strings
        self.nodes.append(Node(name, operation, edges, keys, shape, source_of(traced)))
        return EdgeName(name)

    def empty(self, traced: TracedNode) -> EdgeName:
        """Returns an edge without elements, which no node computes and concatenations may read."""
        name = self._unique(f"{traced.name}.empty")
        self.shapes[name] = self.sample_shape(traced)
        return EdgeName(name)

    def as_edge(self, value: object, call: Call) -> EdgeName:
        """Returns a value as an edge; a constant tensor becomes a constant node.

        Raises:
            CannotLower: the value cannot be an edge.
        """
        if isinstance(value, EdgeName):
            return value
        if isinstance(value, BatchBehind):
            raise CannotLower(f"the batch of an operand must be axis 0, but is axis {value.axis}")
        if isinstance(value, Masked):
            raise CannotLower("it computes with masked scores, which only a softmax may read")
        if isinstance(value, Visible):
            raise CannotLower(
                "it computes with an integer input, which may only be an index of a table's rows "
                "or a mask"
            )
        if not isinstance(value, Tensor):
            raise CannotLower(f"an operand must be a tensor, but is {value!r}")
        rank = len(call.result_shape)
        tensor = value.reshape((1,) * (rank - value.ndim) + tuple(value.shape))
        if tensor.shape[0] == self.batch and bool((tensor == tensor[:1]).all()):
            tensor = tensor[:1]
        if tensor.shape[0] != 1:
            raise CannotLower("a constant operand differs from sample to sample")
        return self.emit(call.traced, Constant(), [], {"value": tensor})

    def _path(self, traced: TracedNode, operation: Operation) -> str:
        """Returns a name for a node, after the module that called it."""
        if isinstance(operation, Input):
            return traced.name
        stack = traced.meta.get("nn_module_stack") or {}
        path, kind = list(stack.values())[-1] if stack else ("", None)
        module = kind if isinstance(kind, str) else getattr(kind, "__module__", "")
        if path and module.startswith("torch.nn.modules.") and "container" not in module:
            return path if not isinstance(operation, Constant) else f"{path}.constant"
        return ".".join(part for part in (path, operation.kind) if part)

    def _unique(self, name: str) -> str:
        if name not in self.shapes:
            return name
        return next(f"{name}_{i}" for i in count(1) if f"{name}_{i}" not in self.shapes)


def evaluate(target: Any, arguments: dict[str, object]) -> Any:
    """Returns the result of an ATen operator for constant arguments by name of its schema."""
    schema = target._schema.arguments
    args = [arguments[a.name] for a in schema if not a.kwarg_only]
    kwargs = {a.name: arguments[a.name] for a in schema if a.kwarg_only}
    return target(*args, **kwargs)


def is_empty(value: object) -> bool:
    """Tells whether a traced result is a tensor without elements."""
    return isinstance(value, Tensor) and value.numel() == 0


def source_of(traced: TracedNode) -> str:
    """Returns the innermost line of code outside PyTorch that made a call, as `file:line`."""
    trace = traced.meta.get("stack_trace") or ""
    frames = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    own = [frame for frame in frames if TORCH_FOLDER not in frame] or frames
    if not own:
        return "(unknown line)"
    file, line = own[-1].split(", ")[:2]
    return f"{file.removeprefix('File ').strip(chr(34))}:{line.removeprefix('line ')}"
