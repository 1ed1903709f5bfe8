"""Captures any model with `torch.export`, and lowers it to a float graph.

Every ATen operator is lowered by a registered function. Operators without one are collected and
reported together. No code depends on the name or class of a model.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, OutputKind
from torch.fx import Graph
from torch.fx import Node as TracedNode

from photomask.chip.data import as_int64, raw_pictures
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph.builder import (
    BatchBehind,
    Builder,
    CannotLower,
    EdgeName,
    Value,
    is_empty,
    source_of,
)
from photomask.chip.graph.examples import example_inputs
from photomask.chip.graph.float_graph import FloatGraph, largest_difference
from photomask.chip.graph.float_model import FloatModel, as_module
from photomask.chip.graph.in_place import reads_as_functional
from photomask.chip.graph.lowering import lower_call
from photomask.chip.graph.model_tensors import views_of
from photomask.chip.graph.operations import Input, Tokens
from photomask.chip.graph.sharing import origins_of
from photomask.errors import CaptureError, DataError, PhotomaskError, UnsupportedOperatorError

EQUALITY_TOLERANCE = 1e-3
"""The largest relative difference between the graph and the model.

Sums in another order differ by about 1e-6 in float32, and a wrong operator by far more than this.
"""


def capture(model: nn.Module | ExportedProgram, example: Any) -> FloatGraph:
    """Returns a model as a float graph, after comparing its outputs with those of the model.

    The model is copied, moved to the CPU, converted to float32 and put in evaluation mode. The
    original is not changed.

    Args:
        model: a module that `torch.export` can capture, or an exported program. A program that was
            exported for a fixed number of samples is compared with that many samples at a time.
        example: inputs with the batch at axis 0 and at least one sample, in any form that
            `photomask.chip.data` describes. The graph works for any batch size.

    Raises:
        UsageError: the model is neither a module nor an exported program.
        CaptureError: the export fails, the graph does not compute what the model does, or no output
            depends on one of the inputs.
        UnsupportedOperatorError: operators are not supported; the message names them all, with
            their source lines.
        DataError: the example is empty, complex or not finite, or a weight is not finite.
    """
    return capture_with_batches(model, example)[0]


def capture_with_batches(
    model: nn.Module | ExportedProgram, example: Any
) -> tuple[FloatGraph, tuple[list[Tensor], ...]]:
    """Returns a model as a float graph, and the batches on which the two were compared."""
    module = as_module(model)
    given, names = example_inputs(module, example)
    frozen = FloatModel(module, names, device="cpu")
    batch = frozen.batch or 2
    examples = [_samples(x, batch) for x in given]
    check_weights(frozen.module)
    try:
        frozen(examples)
        exported = _export(frozen, examples)
    except PhotomaskError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{x.dtype} {list(x.shape)}" for x in examples)
        raise CaptureError(
            f"torch.export cannot capture {type(module).__name__}: {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'} (called with {shapes})"
        ) from error
    batches = examples, [torch.cat([x, _another(x)]) for x in examples]
    with float32_by_default():
        graph = _lower(exported, batch)
        _check_constants(graph, frozen.module)
        for samples in batches:
            _demand_equal(graph, frozen, samples)
    return graph, batches


def _demand_equal(graph: FloatGraph, model: FloatModel, samples: Sequence[Tensor]) -> None:
    """Raises an error if a graph does not compute what the model does."""
    expected = model(samples)
    with torch.no_grad():
        difference = largest_difference(graph(*samples), expected)
    if not difference <= EQUALITY_TOLERANCE:
        raise CaptureError(
            f"the captured graph differs from {type(model.module).__name__} by "
            f"{difference:.2g} of the largest output with a batch of {len(samples[0])}; "
            "the model may depend on the batch size or on data-dependent control flow, or "
            "a mask may hide all elements of a softmax's row, whose outputs are then 0 here"
        )


def _export(model: FloatModel, examples: Sequence[Tensor]) -> ExportedProgram:
    args, kwargs = model.arguments([x.clone() for x in examples])
    with torch.no_grad(), warnings.catch_warnings(), float32_by_default():
        # torch.export warns of deprecations in its own code, which no model can avoid.
        warnings.simplefilter("ignore", FutureWarning)
        # This warning is about a hook that computes a weight. If that changes results, the
        # comparison with the model fails.
        warnings.filterwarnings("ignore", "The tensor attribute", UserWarning)
        exported = torch.export.export(model.module, args, kwargs or None)
        if reads_as_functional(exported.graph):
            return exported
        return exported.run_decompositions({})


def check_weights(model: nn.Module) -> None:
    """Refuses NaN and positive infinity in parameters and buffers.

    Negative infinity can belong to a mask; `_check_constants` finds it elsewhere.

    Raises:
        DataError: values are not finite; the message names the tensor and their number.
    """
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            continue
        bad = ~(torch.isfinite(tensor) | (tensor == -math.inf))
        if bool(bad.any()):
            raise DataError(
                f"{int(bad.sum())} of {tensor.numel()} values of the model's {name!r} are NaN or "
                "infinite; load or train the weights again"
            )


def _check_constants(graph: FloatGraph, model: nn.Module) -> None:
    """Refuses infinity in constants of the graph, from which all masks are removed.

    Raises:
        DataError: values are not finite; the message names the constant, its source line, and the
            model's tensors that hold infinity.
    """
    for node in graph.nodes:
        for role, value in graph.constants_of(node).items():
            if bool(torch.isfinite(value).all()):
                continue
            bad = int((~torch.isfinite(value)).sum())
            infinite = [
                name
                for name, tensor in model.state_dict().items()
                if tensor.is_floating_point() and bool(torch.isinf(tensor).any())
            ]
            where = f"; infinity is in the model's {', '.join(map(repr, infinite))}"
            raise DataError(
                f"{bad} of {value.numel()} values of the {role} of {node.name!r} ({node.source}) "
                f"are NaN or infinite{where if infinite else ''}"
            )


def _samples(x: Tensor, count: int) -> Tensor:
    """Returns a number of samples of an example on the CPU, repeated if there are fewer."""
    if x.ndim < 2 or not x.numel() or x.is_complex():
        raise DataError(
            f"an example must be real of shape [batch, …] and not empty, got {x.dtype} of shape "
            f"{list(x.shape)}"
        )
    if not bool(torch.isfinite(x.to(torch.float32)).all()):
        raise DataError(
            "the example input holds NaN or infinity, or numbers beyond float32; give another one"
        )
    if x.dtype is torch.uint8 and x.ndim > 2:
        raise DataError(f"the example holds {raw_pictures(x)}")
    chosen = x[torch.arange(count).remainder(len(x))].cpu()
    if x.dtype is torch.bool:
        return chosen
    return chosen.to(torch.float32) if x.is_floating_point() else as_int64(chosen, "the example")


def _another(x: Tensor) -> Tensor:
    """Returns one more sample: the first one flipped, or for integers the last one again.

    Integers are not flipped, because a flipped mask could hide all elements of a row.
    """
    return x[:1].flip(-1) if x.is_floating_point() else x[-1:]


def _lower(exported: ExportedProgram, batch: int) -> FloatGraph:
    """Returns the float graph of a traced graph.

    Raises:
        UnsupportedOperatorError: calls cannot be lowered; the message names them all.
    """
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
    live = _live(exported.graph, signature)
    for traced in exported.graph.nodes:
        if traced not in live:
            continue
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
        made_of=views_of(builder.made_of, _state(signature, tensors)),
    )
    graph = graph.pruned()
    _demand_read(graph)
    return graph


def _state(signature: ExportGraphSignature, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the parameters and buffers of the model by name, without tensors in its code."""
    names = *signature.inputs_to_parameters.values(), *signature.inputs_to_buffers.values()
    return {name: tensors[name] for name in names}


def _demand_read(graph: FloatGraph) -> None:
    """Refuses inputs that nothing reads, because hardware would have to receive them in vain.

    Raises:
        CaptureError: there are such inputs; the message names them.
    """
    readers = graph.users()
    if unread := [name for name in graph.inputs if not readers[name]]:
        raise CaptureError(
            f"no result of the model depends on its input(s) {', '.join(map(repr, unread))}: leave "
            "them out of the example and the data if the model's forward has a default for them; "
            "otherwise wrap the model in a module whose forward passes constants for them"
        )


def _live(graph: Graph, signature: ExportGraphSignature) -> set[TracedNode]:
    """Returns all inputs and the nodes that the results depend on; others are not lowered."""
    live = {node for node in graph.nodes if node.op in ("placeholder", "output")}
    results: Any = graph.output_node().args[0]
    waiting = [
        result
        for result, spec in zip(results, signature.output_specs, strict=True)
        if spec.kind is OutputKind.USER_OUTPUT and isinstance(result, TracedNode)
    ]
    while waiting:
        node = waiting.pop()
        if node not in live:
            live.add(node)
            waiting += node.all_input_nodes
    return live


def _outputs(builder: Builder, traced: TracedNode, signature: ExportGraphSignature) -> list[str]:
    """Returns the edges of the tensors that the model returns.

    None among the results, and values that the model writes into its inputs, are left out.

    Raises:
        CannotLower: the batch of a result is not axis 0.
        CaptureError: the model changes a buffer, or a result is no tensor that depends on an input.
    """
    names: list[str] = []
    results: Any = traced.args[0]
    for result, spec in zip(results, signature.output_specs, strict=True):
        if spec.kind is OutputKind.BUFFER_MUTATION:
            raise CaptureError(
                f"the model changes its buffer {spec.target!r} while it runs; make it an input and "
                "an output, and name it in `states` of prepare"
            )
        if spec.kind is not OutputKind.USER_OUTPUT or result is None:
            continue
        value = builder.values[result] if isinstance(result, TracedNode) else result
        if isinstance(value, BatchBehind):
            raise CannotLower(f"the batch of a result must be axis 0, but is axis {value.axis}")
        if is_empty(getattr(result, "meta", {}).get("val")):
            raise CaptureError(
                f"result {len(names)} of the model has no elements; do not return it"
            )
        if not isinstance(value, EdgeName):
            raise CaptureError(
                "the model must return tensors that depend on its input, alone or in tuples, lists "
                f"and dicts; result {len(names)} is a {type(value).__name__} that does not depend "
                "on it"
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
    """Returns a value for a call that could not be lowered, so that later problems are found."""
    value = traced.meta.get("val")
    if isinstance(value, (tuple, list)):
        return tuple(_input_like(builder, traced, item) for item in value)
    return _input_like(builder, traced, value)


def _input_like(builder: Builder, traced: TracedNode, value: object) -> Value:
    name = builder._unique(f"unsupported.{traced.name}")
    shape = tuple(value.shape) if isinstance(value, Tensor) else (1,)
    builder.shapes[name] = (max(1, shape[0] // builder.batch), *shape[1:]) if shape else (1,)
    return EdgeName(name)
