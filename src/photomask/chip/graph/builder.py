"""What lowerings work with: values of a traced model, its calls, and the nodes they become."""

import math
import os
from collections.abc import Callable, Hashable, Sequence
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
    """The name of an edge; never confused with a string argument such as a padding mode."""

    __slots__ = ()


@dataclass(frozen=True)
class BatchBehind:
    """An edge that the model holds with its batch at another axis than the first.

    Attributes:
        edge: the same values, the batch first and the other axes in the model's order.
        axis: where the model has the batch.
        outer: how many elements the model's axis holds for each sample in front of the batch, such
            as the places of `places * samples` rows; more than 1 are an axis of the edge.
    """

    edge: EdgeName
    axis: int
    outer: int = 1


@dataclass(frozen=True)
class Visible:
    """What a softmax may look at: an edge that is not 0 there, and a constant besides.

    Attributes:
        edge: an integer input.
        constant: boolean, broadcasts with it.
        form: how the model holds it now: true where it sees, true where it hides, the same as
            numbers 1 and 0, or a number that is added to scores, 0 where it sees.
    """

    edge: EdgeName
    constant: Tensor
    form: Literal["seen", "hidden", "one_seen", "one_hidden", "added"] = "seen"


@dataclass(frozen=True)
class Masked:
    """Scores of which a softmax, which must read them next, sees a part.

    Attributes:
        scores: the scores, all of them.
        edge: an integer input that is 0 where they are hidden.
        seen: boolean, of one sample; false where they are hidden.
        view: the shape of one sample that the shares are brought to, if the model has reshaped
            the masked scores.
    """

    scores: EdgeName
    edge: EdgeName | None = None
    seen: Tensor | None = None
    view: tuple[int, ...] | None = None


Value = EdgeName | BatchBehind | Visible | Masked | Tensor | tuple["Value", ...]
"""What a traced node stands for: an edge's name, a tensor known now, or several of them."""


class CannotLower(Exception):
    """Raised by a lowering for a case that no operation expresses; says why."""


@dataclass
class Call:
    """One traced operator call as its lowering sees it."""

    builder: "Builder"
    traced: TracedNode
    arguments: dict[str, object]
    """By the names of the operator's schema, defaults filled in, nodes replaced by values."""
    moved_shape: tuple[int, ...] | None = None
    """Of one sample's result with its batch first, where the model has the batch elsewhere."""

    def __getitem__(self, name: str) -> object:
        return self.arguments[name]

    def get(self, name: str, default: object = None) -> object:
        """Returns an argument, or the default where the schema has none of that name."""
        return self.arguments.get(name, default)

    def edge(self, name: str) -> EdgeName:
        """Returns an argument that must be an edge; a constant tensor becomes one."""
        return self.builder.as_edge(self.arguments[name], self)

    def constant(self, name: str) -> Tensor:
        """Returns an argument that must be known now."""
        value = self.arguments[name]
        if not isinstance(value, Tensor):
            raise CannotLower(f"its {name} depends on the input")
        return value

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor argument, batch of one."""
        value = self.arguments[name]
        if isinstance(value, Tensor):
            return tuple(value.shape)
        if not isinstance(value, EdgeName):
            raise CannotLower(f"its {name} is not one tensor")
        return self.builder.shapes[value]

    @property
    def result_shape(self) -> tuple[int, ...]:
        """The shape of the (first) result, batch of one."""
        if self.moved_shape is not None:
            return self.moved_shape
        return self.builder.sample_shape(self.traced)

    def emit(
        self,
        operation: Operation,
        inputs: Sequence[str],
        constants: dict[str, Tensor] | None = None,
    ) -> EdgeName:
        """Adds a node and returns its edge."""
        return self.builder.emit(self.traced, operation, inputs, constants or {})


Lowering = Callable[[Call], Value]


@dataclass
class Builder:
    """Collects nodes while the traced graph is walked."""

    batch: int
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    values: dict[TracedNode, Value] = field(default_factory=dict)
    given: dict[str, Tensor] = field(default_factory=dict)
    """The constants as the model holds them."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rows: set[str] = field(default_factory=set)
    """Edges that hold integers: numbers of rows, or what may be seen."""
    evaluated: dict[Hashable, Tensor] = field(default_factory=dict)
    """What was computed of the model's tensors alone, by operator and arguments."""

    def sample_shape(self, traced: TracedNode) -> tuple[int, ...]:
        """Returns a traced node's shape for one sample; axis 0 must be a multiple of the batch."""
        value = traced.meta.get("val")
        if isinstance(value, (tuple, list)):
            value = value[0]
        if not isinstance(value, Tensor):
            raise CannotLower("its result is not a tensor")
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
    ) -> EdgeName:
        """Adds a node; its shape is found by computing it on inputs of one sample."""
        if any(
            name in self.rows and operation.use_of_integers(position) is None
            for position, name in enumerate(inputs)
        ):
            raise CannotLower(
                "it computes with an integer input, which can only choose rows or hide elements"
            )
        name = self._unique(self._path(traced, operation))
        keys = {role: f"{name}.{role}" for role in constants}
        self.given |= {keys[role]: value.detach() for role, value in constants.items()}
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
            raise CannotLower("a sample's result is a single number; keep an axis for it")
        self.shapes[name] = shape
        moves = operation.use_of_integers(0) is IntegerUse.MOVES
        if isinstance(operation, Tokens) or (moves and inputs[0] in self.rows):
            self.rows.add(name)
        edges = tuple(map(str, inputs))  # the compiler of PyTorch 2.11 takes no other strings
        self.nodes.append(Node(name, operation, edges, keys, shape, source_of(traced)))
        return EdgeName(name)

    def empty(self, traced: TracedNode) -> EdgeName:
        """Returns an edge without elements: no node computes it, and only joins may read it."""
        name = self._unique(f"{traced.name}.empty")
        self.shapes[name] = self.sample_shape(traced)
        return EdgeName(name)

    def as_edge(self, value: object, call: Call) -> EdgeName:
        """Returns an edge; a tensor known now becomes a constant node."""
        if isinstance(value, EdgeName):
            return value
        if isinstance(value, BatchBehind):
            raise CannotLower(f"the batch of an operand is at axis {value.axis}, not the first")
        if isinstance(value, Masked):
            raise CannotLower("it computes with masked scores, which only a softmax may read")
        if isinstance(value, Visible):
            raise CannotLower(
                "it computes with an integer input, which can only choose rows or hide elements"
            )
        if not isinstance(value, Tensor):
            raise CannotLower(f"an operand is {value!r}, not a tensor")
        rank = len(call.result_shape)
        tensor = value.reshape((1,) * (rank - value.ndim) + tuple(value.shape))
        if tensor.shape[0] == self.batch and bool((tensor == tensor[:1]).all()):
            tensor = tensor[:1]
        if tensor.shape[0] != 1:
            raise CannotLower("a constant operand differs from sample to sample")
        return self.emit(call.traced, Constant(), [], {"value": tensor})

    def _path(self, traced: TracedNode, operation: Operation) -> str:
        """Names a node after the module that called it."""
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
    """Calls an ATen operator with arguments by the names of its schema, all of them known now."""
    schema = target._schema.arguments
    args = [arguments[a.name] for a in schema if not a.kwarg_only]
    kwargs = {a.name: arguments[a.name] for a in schema if a.kwarg_only}
    return target(*args, **kwargs)


def is_empty(value: object) -> bool:
    """Tells whether a traced result is a tensor without elements."""
    return isinstance(value, Tensor) and value.numel() == 0


def source_of(traced: TracedNode) -> str:
    """Returns the innermost line of the model's code (not PyTorch's own) as `file:line`."""
    trace = traced.meta.get("stack_trace") or ""
    frames = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    own = [frame for frame in frames if TORCH_FOLDER not in frame] or frames
    if not own:
        return "(unknown line)"
    file, line = own[-1].split(", ")[:2]
    return f"{file.removeprefix('File ').strip(chr(34))}:{line.removeprefix('line ')}"
