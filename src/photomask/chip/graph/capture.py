"""`torch.export` → float graph: any model, no model names.

Every ATen operator is lowered by a function of `lowering`; operators without one are collected
and reported together.
"""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import ExportGraphSignature, OutputKind
from torch.fx import Node as TracedNode
from torch.utils._pytree import tree_leaves

from photomask.chip.graph.builder import (
    BatchBehind,
    Builder,
    CannotLower,
    EdgeName,
    Value,
    source_of,
)
from photomask.chip.graph.float_graph import FloatGraph, largest_difference
from photomask.chip.graph.in_place import reads_as_functional
from photomask.chip.graph.lowering import lower_call
from photomask.chip.graph.operations import Input, Tokens
from photomask.chip.graph.sharing import origins_of
from photomask.errors import CaptureError, DataError, UnsupportedOperatorError

EQUALITY_TOLERANCE = 1e-3
"""Float32 sums in another order differ by about 1e-6; a wrong operator by far more."""


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
    batches = trial_batches(example)
    examples = batches[0]
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
        for batch in batches:
            expected = _flat(frozen(*(x.clone() for x in batch)))
            difference = largest_difference(graph(*batch), expected)
            if not difference <= EQUALITY_TOLERANCE:
                raise CaptureError(
                    f"the captured graph differs from {type(model).__name__} by "
                    f"{difference:.2g} of the largest output with a batch of {len(batch[0])}; "
                    "the model may depend on the batch size or on data-dependent control flow, or "
                    "a mask may hide all elements of a softmax's row, which then are 0 here"
                )
    return graph


def trial_batches(example: Tensor | Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the batches that a graph is compared on: of two samples, and of three.

    Raises:
        DataError: the example is empty, not real or not finite.
    """
    examples = [example] if isinstance(example, Tensor) else list(example)
    pairs = [_two_samples(x) for x in examples]
    return pairs, [torch.cat([x, _another(x)]) for x in pairs]


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
    if x.dtype is torch.bool:
        return pair
    return pair.to(torch.float32 if x.is_floating_point() else torch.int64)


def _another(x: Tensor) -> Tensor:
    """Returns one more sample: flipped, or, as masks have a side that they hide, the same again."""
    return x[:1].flip(-1) if x.is_floating_point() else x[-1:]


def _flat(outputs: object) -> list[Tensor]:
    leaves = tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _lower(exported: torch.export.ExportedProgram, batch: int) -> FloatGraph:
    """Walks the traced graph once; collects what cannot be lowered and reports it together."""
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
    graph = FloatGraph(
        tuple(builder.nodes),
        tuple(outputs),
        builder.constants,
        origins=origins_of(builder.given),
    )
    return graph.pruned()


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
