"""`torch.export` → float graph: any model, no model names.

Every ATen operator is lowered by a function of `lowering`; operators without one are collected
and reported together.
"""

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import ExportGraphSignature, OutputKind
from torch.fx import Node as TracedNode
from torch.utils._pytree import tree_leaves

from photomask.chip.graph.float_graph import FloatGraph, Node, largest_difference
from photomask.chip.graph.in_place import reads_as_functional
from photomask.chip.graph.operations import (
    Constant,
    Gather,
    Input,
    Operation,
    Permute,
    Reshape,
    Slice,
    Tokens,
)
from photomask.chip.graph.transformer_operations import Embedding, Softmax
from photomask.errors import CaptureError, DataError, UnsupportedOperatorError

TORCH_FOLDER = os.path.dirname(torch.__file__)
ON_ROWS = (Embedding, Gather, Permute, Reshape, Slice)
"""What may be done with an integer input."""
EQUALITY_TOLERANCE = 1e-3
"""Float32 sums in another order differ by about 1e-6; a wrong operator by far more."""


class EdgeName(str):
    """The name of an edge; never confused with a string argument such as a padding mode."""

    __slots__ = ()


@dataclass(frozen=True)
class BatchBehind:
    """An edge that the model holds with its batch at another axis than the first.

    Attributes:
        edge: the same values, the batch first and the other axes in the model's order.
        axis: where the model has the batch.
    """

    edge: EdgeName
    axis: int


@dataclass(frozen=True)
class Visible:
    """What a softmax may look at: an edge that is not 0 there, and a constant besides.

    Attributes:
        edge: an integer input.
        constant: boolean, broadcasts with it.
    """

    edge: EdgeName
    constant: Tensor


Value = EdgeName | BatchBehind | Visible | Tensor | tuple["Value", ...]
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
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rows: set[str] = field(default_factory=set)
    """Edges that hold integers: numbers of rows, or what may be seen."""

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
        values = inputs[:1] if isinstance(operation, Softmax) else inputs
        if any(name in self.rows for name in values) and not isinstance(operation, ON_ROWS):
            raise CannotLower(
                "it computes with an integer input, which can only choose rows or hide elements"
            )
        name = self._unique(self._path(traced, operation))
        keys = {role: f"{name}.{role}" for role in constants}
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
        if operation.takes_clamp and len(shape) == 1:
            raise CannotLower("a sample's result is a single number; keep an axis for it")
        self.shapes[name] = shape
        moves = isinstance(operation, (Gather, Permute, Reshape, Slice))
        if isinstance(operation, Tokens) or (moves and inputs[0] in self.rows):
            self.rows.add(name)
        self.nodes.append(Node(name, operation, tuple(inputs), keys, shape, source_of(traced)))
        return EdgeName(name)

    def as_edge(self, value: object, call: Call) -> EdgeName:
        """Returns an edge; a tensor known now becomes a constant node."""
        if isinstance(value, EdgeName):
            return value
        if isinstance(value, BatchBehind):
            raise CannotLower(f"the batch of an operand is at axis {value.axis}, not the first")
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


def source_of(traced: TracedNode) -> str:
    """Returns the innermost line of the model's code (not PyTorch's own) as `file:line`."""
    trace = traced.meta.get("stack_trace") or ""
    frames = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    own = [frame for frame in frames if TORCH_FOLDER not in frame] or frames
    if not own:
        return "(unknown line)"
    file, line = own[-1].split(", ")[:2]
    return f"{file.removeprefix('File ').strip(chr(34))}:{line.removeprefix('line ')}"


def capture(model: torch.nn.Module, example: Tensor | Sequence[Tensor]) -> FloatGraph:
    """Captures a model as a float graph that provably computes the same.

    The model is copied, moved to the CPU as float32 and put in evaluation mode; the original is
    never changed.

    Args:
        model: any module that `torch.export` captures.
        example: float inputs with the batch at axis 0, at least one sample; the result works for
            any batch size.

    Raises:
        CaptureError: the export fails, or the graph does not equal the model.
        UnsupportedOperatorError: names every operator outside the set, with its source line.
        DataError: the example is empty, not floating-point or not finite.
    """
    examples = [example] if isinstance(example, Tensor) else list(example)
    examples = [_two_samples(x) for x in examples]
    frozen = _copied(model)
    check_weights(frozen)
    try:
        with torch.no_grad():
            frozen(*(x.clone() for x in examples))
        exported = _export(frozen, examples)
    except Exception as error:
        raise CaptureError(
            f"torch.export cannot capture {type(model).__name__}: {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}"
        ) from error
    graph = _lower(exported, batch=2)
    with torch.no_grad():
        for batch in (examples, [torch.cat([x, x[:1].flip(-1)]) for x in examples]):
            expected = _flat(frozen(*(x.clone() for x in batch)))
            difference = largest_difference(graph(*batch), expected)
            if not difference <= EQUALITY_TOLERANCE:
                raise CaptureError(
                    f"the captured graph differs from {type(model).__name__} by "
                    f"{difference:.2g} of the largest output with a batch of {len(batch[0])}; "
                    "the model may depend on the batch size or on data-dependent control flow"
                )
    return graph


def _copied(model: torch.nn.Module) -> torch.nn.Module:
    """Returns a copy in evaluation mode; weights that a hook computed are copied as they are."""
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(model, computed).cpu().float().eval().requires_grad_(False)
    except Exception as error:
        raise CaptureError(f"{type(model).__name__} cannot be copied: {error}") from error


def _export(model: torch.nn.Module, examples: Sequence[Tensor]) -> torch.export.ExportedProgram:
    with torch.no_grad(), warnings.catch_warnings():
        # torch.export warns of its own internals' deprecations; the model cannot help it.
        warnings.simplefilter("ignore", FutureWarning)
        # Of a hook that computes a weight; the comparison with the model shows if it matters.
        warnings.filterwarnings("ignore", "The tensor attribute", UserWarning)
        exported = torch.export.export(model, tuple(x.clone() for x in examples))
        if reads_as_functional(exported.graph):
            return exported
        return exported.run_decompositions({})


def check_weights(model: torch.nn.Module) -> None:
    """Refuses NaN and infinity in parameters and buffers.

    Raises:
        DataError: names the tensor and how many values are not finite.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise DataError(
                f"{bad} of {tensor.numel()} values of the model's {name!r} are NaN or infinite"
            )


def _two_samples(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or x.ndim < 2 or len(x) == 0 or x.is_complex():
        found = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise DataError(f"an example must be real of shape [batch, …], got {found}")
    if not bool(torch.isfinite(x).all()):
        raise DataError("the example input holds NaN or infinity")
    pair = torch.cat([x[:1], x[1:2] if len(x) > 1 else x[:1]])
    return pair.to(torch.float32 if x.is_floating_point() else torch.int64)


def _flat(outputs: object) -> list[Tensor]:
    leaves = tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _lower(exported: torch.export.ExportedProgram, batch: int) -> FloatGraph:
    """Walks the traced graph once; collects what cannot be lowered and reports it together."""
    from photomask.chip.graph.lowering import lower_call

    builder = Builder(batch)
    signature = exported.graph_signature
    tensors = {**exported.state_dict, **exported.constants}
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    problems: list[str] = []
    outputs: list[str] = []
    for traced in exported.graph.nodes:
        try:
            if traced.op == "placeholder":
                if traced.name in names:
                    builder.values[traced] = tensors[names[traced.name]].detach()
                else:
                    kind = Input if traced.meta["val"].is_floating_point() else Tokens
                    builder.values[traced] = builder.emit(traced, kind(), [], {})
            elif traced.op == "call_function":
                builder.values[traced] = lower_call(builder, traced)
            elif traced.op == "output":
                outputs = _outputs(builder, traced, signature)
        except (CannotLower, IndexError, RuntimeError, TypeError, ValueError) as error:
            problems.append(_problem(traced, error))
            builder.values[traced] = _placeholder(builder, traced)
    if problems:
        raise UnsupportedOperatorError(
            f"{len(problems)} operator(s) have no integer form:\n" + "\n".join(problems)
        )
    return FloatGraph(tuple(builder.nodes), tuple(outputs), builder.constants).pruned()


def _outputs(builder: Builder, traced: TracedNode, signature: ExportGraphSignature) -> list[str]:
    """Returns the edges that the model returns; None among its results is left out.

    What it wrote into its inputs is no result.
    """
    names: list[str] = []
    results: Any = traced.args[0]
    for result, spec in zip(results, signature.output_specs, strict=True):
        if spec.kind is OutputKind.BUFFER_MUTATION:
            raise CaptureError(f"the model changes its buffer {spec.target!r} while it runs")
        if spec.kind is not OutputKind.USER_OUTPUT or result is None:
            continue
        value = builder.values[result] if isinstance(result, TracedNode) else result
        if isinstance(value, BatchBehind):
            raise CannotLower(f"the batch of a result is at axis {value.axis}, not the first")
        if not isinstance(value, EdgeName):
            raise CaptureError(
                "the model must return tensors that depend on its input, alone or in tuples, lists "
                f"and dicts; result {len(names)} is a {type(value).__name__} that does not"
            )
        names.append(str(value))
    if not names:
        raise CaptureError("the model must return one or more tensors that depend on its input")
    return names


def _problem(traced: TracedNode, error: Exception) -> str:
    value = traced.meta.get("val")
    items = value if isinstance(value, (tuple, list)) else [value]
    shapes = ", ".join(str(list(item.shape)) for item in items if isinstance(item, Tensor))
    stack = list((traced.meta.get("nn_module_stack") or {}).values())
    module = f" in {stack[-1][0]!r}" if stack and stack[-1][0] else ""
    return f"  {traced.name}{module}: {traced.target} {shapes} at {source_of(traced)}: {error}"


def _placeholder(builder: Builder, traced: TracedNode) -> Value:
    """Stands for what could not be lowered, so that later problems are found as well."""
    value = traced.meta.get("val")
    if isinstance(value, (tuple, list)):
        return tuple(_input_like(builder, traced, item) for item in value)
    return _input_like(builder, traced, value)


def _input_like(builder: Builder, traced: TracedNode, value: object) -> Value:
    name = builder._unique(f"unsupported.{traced.name}")
    shape = tuple(value.shape) if isinstance(value, Tensor) else (1,)
    builder.shapes[name] = (max(1, shape[0] // builder.batch), *shape[1:]) if shape else (1,)
    return EdgeName(name)
