"""Lowers the calls of ATen operators to float operations, with one small function per operator.

A lowering reads the arguments of a call by the names of the operator's schema, and emits nodes.
Tensors that do not depend on an input are computed at once, so a model may compute its weights.
"""

import operator
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as TracedNode

from photomask.chip.graph.batch_axis import with_batch_first
from photomask.chip.graph.builder import (
    BatchBehind,
    Builder,
    Call,
    CannotLower,
    EdgeName,
    Masked,
    Value,
    Visible,
    evaluate,
    is_empty,
)
from photomask.chip.graph.lowerings import registered
from photomask.chip.graph.lowerings.joining import without_empty


def lower_call(builder: Builder, traced: TracedNode) -> Value:
    """Lowers one traced call, and returns its value.

    Raises:
        CannotLower: the operator, or this use of it, has no integer form.
    """
    if traced.target is operator.getitem:
        source, index = traced.args
        values: Any = builder.values[source]  # type: ignore[index]
        if not isinstance(values, (tuple, list)):
            values = [values]
        if index >= len(values):  # type: ignore[operator]
            raise CannotLower(f"result {index} of {source.target} has no integer form")  # type: ignore[union-attr]
        return values[index]  # type: ignore[index]
    target: Any = traced.target
    if not isinstance(target, torch._ops.OpOverload):
        raise CannotLower("it must be an ATen operator")
    arguments = {}
    for position, argument in enumerate(target._schema.arguments):
        value = argument.default_value if argument.has_default_value() else None
        value = traced.args[position] if position < len(traced.args) else value
        value = traced.kwargs.get(argument.name, value)
        arguments[argument.name] = _resolve(builder, value)
    if not _reaches_input(list(arguments.values())):
        return _evaluate_once(builder, target, arguments)
    if is_empty(traced.meta.get("val")):
        return builder.empty(traced)
    if "tensors" in arguments:
        arguments["tensors"] = without_empty(builder, arguments["tensors"])
    call = Call(builder, traced, arguments)
    known = registered(target)
    if known is None:
        raise CannotLower("it is outside the supported set")
    mask = arguments.get("self")
    if isinstance(mask, Visible) and mask.form != "seen" and known.moves_masks:
        edge: Any = known.lower(Call(builder, traced, {**arguments, "self": mask.edge}))
        return replace(mask, edge=edge)
    return with_batch_first(call, known.lower, known.batch)


def _resolve(builder: Builder, value: object) -> object:
    if isinstance(value, TracedNode):
        return builder.values[value]
    if isinstance(value, (list, tuple)):
        return [_resolve(builder, item) for item in value]
    return value


def _reaches_input(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_reaches_input, value))
    return isinstance(value, (EdgeName, BatchBehind, Masked, Visible))


def _evaluate_once(builder: Builder, target: Any, arguments: dict[str, object]) -> Value:
    """Returns the result of a call on constants; equal calls return the same tensor."""
    key = (target, _identity(list(arguments.values())))
    if target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags:
        builder.evaluated.clear()
        return evaluate(target, arguments)
    if key not in builder.evaluated:
        result = evaluate(target, arguments)
        if not isinstance(result, Tensor):
            return result
        builder.evaluated[key] = result
    return builder.evaluated[key]


def _identity(value: object) -> Hashable:
    """Returns a key for an argument of a call; that of a tensor is its place in memory."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_identity, value))
    if isinstance(value, Tensor):
        place = value.untyped_storage().data_ptr(), value.storage_offset()
        return (*place, tuple(value.shape), value.stride(), value.dtype)
    return type(value), str(value)
