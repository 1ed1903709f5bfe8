"""ATen operators → float operations, one small function each.

A lowering reads the call's arguments by the names of the operator's schema and emits nodes. A
tensor that no input reaches is computed at once, so weights may be computed in the model.
"""

import math
import operator
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as TracedNode

from photomask.chip.graph.batch_axis import AXIS_BY_AXIS, with_batch_first
from photomask.chip.graph.builder import (
    BatchBehind,
    Builder,
    Call,
    CannotLower,
    EdgeName,
    Lowering,
    Masked,
    Value,
    Visible,
    is_empty,
)
from photomask.chip.graph.lowerings.attending import ATTENDING
from photomask.chip.graph.lowerings.joining import JOINING, without_empty
from photomask.chip.graph.lowerings.masking import MASKING, added_to_scores, computed_mask
from photomask.chip.graph.lowerings.pointwise import CLAMPS, FUNCTIONS, lower_pointwise
from photomask.chip.graph.lowerings.rearranging import REARRANGING
from photomask.chip.graph.lowerings.reducing import REDUCING, per_axis
from photomask.chip.graph.lowerings.rows import emit_of_two
from photomask.chip.graph.operations import (
    Add,
    ChannelAffine,
    Clamp,
    Convolution,
    Linear,
    Matmul,
    Multiply,
    Slice,
)

LOWERINGS: dict[str, Lowering] = ATTENDING | JOINING | MASKING | REARRANGING | REDUCING


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Registers a lowering for ATen operators, with or without their overload's name."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return register


def lower_call(builder: Builder, traced: TracedNode) -> Value:
    """Lowers one traced call.

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
        raise CannotLower("it is no ATen operator")
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
    mask = arguments.get("self")
    if isinstance(mask, Visible) and mask.form != "seen" and moves(target):
        call = Call(builder, traced, {**arguments, "self": mask.edge})
        edge = REARRANGING[target._schema.name.removeprefix("aten::")](call)
        return replace(mask, edge=edge)
    name = target._schema.name.removeprefix("aten::")
    name = name if name.endswith("__") else name.removesuffix("_")
    lowering = LOWERINGS.get(f"{name}.{target._overloadname}") or LOWERINGS.get(name)
    lowering = lowering or partial(lower_pointwise, name)
    if name in AXIS_BY_AXIS or name in FUNCTIONS or name in CLAMPS:
        return with_batch_first(call, lowering)
    return lowering(call)


def moves(target: Any) -> bool:
    """Tells whether an operator moves the elements of a mask and changes none."""
    name = target._schema.name.removeprefix("aten::")
    return name in ("expand", "permute", "reshape", "select", "slice", "squeeze", "transpose",
                    "unflatten", "unsqueeze", "view", "_unsafe_view")  # fmt: skip


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
    """Computes what no input reaches; equal calls give one tensor."""
    key = (target, _identity(list(arguments.values())))
    if target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags:
        builder.evaluated.clear()
        return _evaluate(target, arguments)
    if key not in builder.evaluated:
        result = _evaluate(target, arguments)
        if not isinstance(result, Tensor):
            return result
        builder.evaluated[key] = result
    return builder.evaluated[key]


def _identity(value: object) -> Hashable:
    """Returns what tells arguments of a call apart: of a tensor, where it lies."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_identity, value))
    if isinstance(value, Tensor):
        place = value.untyped_storage().data_ptr(), value.storage_offset()
        return (*place, tuple(value.shape), value.stride(), value.dtype)
    return type(value), str(value)


def _evaluate(target: Any, arguments: dict[str, object]) -> Value:
    schema = target._schema.arguments
    args = [arguments[a.name] for a in schema if not a.kwarg_only]
    kwargs = {a.name: arguments[a.name] for a in schema if a.kwarg_only}
    return target(*args, **kwargs)


@lowers("conv1d", "conv2d")
def _convolution(call: Call) -> Value:
    weight = call.constant("weight")
    rank = weight.ndim - 2
    stride, dilation = per_axis(call["stride"], rank), per_axis(call["dilation"], rank)
    padding = call["padding"]
    if padding == "valid":
        pairs = ((0, 0),) * rank
    elif padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        pairs = tuple((total // 2, total - total // 2) for total in totals)
    else:
        pairs = tuple((p, p) for p in per_axis(padding, rank))
    given = call["bias"]
    bias = given if isinstance(given, Tensor) else torch.zeros(weight.shape[0])
    groups: Any = call["groups"]
    return call.emit(
        Convolution(stride, pairs, dilation, groups),
        [call.edge("input")],
        {"weight": weight, "bias": bias},
    )


@lowers("linear")
def _linear(call: Call) -> Value:
    if not isinstance(call["weight"], Tensor):
        raise CannotLower("its weight depends on the input")
    weight = call.constant("weight")
    given = call["bias"]
    bias = given if isinstance(given, Tensor) else torch.zeros(weight.shape[0])
    return call.emit(Linear(), [call.edge("input")], {"weight": weight, "bias": bias})


@lowers("addmm")
def _addmm(call: Call) -> Value:
    alpha: Any = call["alpha"]
    beta: Any = call["beta"]
    weight = call.constant("mat2").t() * alpha
    bias = call.constant("self") * beta
    if bias.numel() not in (1, len(weight)):
        raise CannotLower("its addend is not one number for each output")
    constants = {"weight": weight, "bias": bias.reshape(-1).expand(len(weight))}
    return call.emit(Linear(), [call.edge("mat1")], constants)


@lowers("matmul", "mm", "bmm")
def _matmul(call: Call) -> Value:
    second = "other" if "other" in call.arguments else "mat2"
    weight = call[second]
    if isinstance(weight, Tensor) and weight.ndim == 2:
        constants = {"weight": weight.t(), "bias": torch.zeros(weight.shape[1])}
        return call.emit(Linear(), [call.edge("self")], constants)
    if min(len(call.shape("self")), len(call.shape(second))) < 2 or len(call.result_shape) < 3:
        raise CannotLower("both operands need a batch axis and two more, or the second be constant")
    return emit_of_two(call, Matmul(), call["self"], weight)


@lowers("baddbmm")
def _baddbmm(call: Call) -> Value:
    """A product of matrices and an addend, such as masked scores."""
    alpha: Any = call["alpha"]
    beta: Any = call["beta"]
    product = emit_of_two(call, Matmul(float(alpha)), call["batch1"], call["batch2"])
    addend = call["self"]
    if beta == 0:
        return product
    if isinstance(addend, Tensor):
        addend = addend * beta
    elif beta != 1:
        addend = lower_pointwise("mul_scalar", call, call.edge("self"), float(beta))
    return _sum(call, product, addend, 1)


@lowers("_native_batch_norm_legit_no_training", "batch_norm")
def _batch_norm(call: Call) -> Value:
    if call.get("training") or call["running_mean"] is None:
        raise CannotLower("it normalises by the statistics of the batch")
    mean, variance = call.constant("running_mean"), call.constant("running_var")
    scale = torch.rsqrt(variance.double() + call["eps"])  # type: ignore[operator]
    if isinstance(call["weight"], Tensor):
        scale = scale * call.constant("weight").double()
    offset = -mean.double() * scale
    if isinstance(call["bias"], Tensor):
        offset = offset + call.constant("bias").double()
    edge = call.edge("input")
    return call.emit(ChannelAffine(), [edge], {"weight": scale.float(), "bias": offset.float()})


@lowers("add", "sub", "rsub", "subtract")
def _add(call: Call) -> Value:
    first, second = call["self"], call["other"]
    name = str(call.traced.target)
    factor: Any = call.get("alpha", 1)
    sign = -1 if "sub" in name else 1
    if "rsub" in name:
        first, second = second, first
    if abs(factor) == 1:
        sign *= int(factor)
    elif isinstance(second, EdgeName):
        second = lower_pointwise("mul_scalar", call, second, float(factor))
    else:
        second = second * factor  # type: ignore[operator]
    return _sum(call, first, second, sign)


def _sum(call: Call, first: object, second: object, sign: int) -> Value:
    mask = computed_mask("sub", first, second) if sign == -1 else None
    if mask is not None:
        return mask
    for known, other, known_sign, other_sign in (
        (second, first, sign, 1),
        (first, second, 1, sign),
    ):
        if isinstance(known, (int, float)) or (isinstance(known, Tensor) and known.numel() == 1):
            value = float(known) * known_sign
            edge = call.builder.as_edge(other, call)
            return lower_pointwise("add_scalar", call, edge, value, float(other_sign))
        found = channel_vector(call, known, other)
        if found is not None:
            channels, axis = found
            weight = torch.full_like(channels, float(other_sign))
            edge = call.builder.as_edge(other, call)
            constants = {"weight": weight, "bias": channels * known_sign}
            return call.emit(ChannelAffine(axis), [edge], constants)
    masked = added_to_scores(call, first, second) if sign == 1 else None
    if masked is not None:
        return masked
    return emit_of_two(call, Add((1, sign)), first, second)


@lowers(
    "mul", "multiply", "div.Tensor", "div.Scalar", "divide.Tensor", "divide.Scalar", "true_divide"
)
def _multiply(call: Call) -> Value:
    first, second = call["self"], call["other"]
    if "div" in str(call.traced.target):
        if isinstance(second, EdgeName):
            if isinstance(first, (int, float)):
                edge = lower_pointwise("reciprocal", call, second)
                return lower_pointwise("mul_scalar", call, edge, float(first))
            inverse = lower_pointwise("reciprocal", call, second)
            return call.emit(Multiply(), [call.builder.as_edge(first, call), inverse])
        second = 1.0 / second if isinstance(second, Tensor) else 1.0 / float(second)  # type: ignore[arg-type]
    mask = computed_mask("mul", first, second)
    if mask is not None:
        return mask
    for known, other in ((second, first), (first, second)):
        if isinstance(known, (int, float)) or (isinstance(known, Tensor) and known.numel() == 1):
            edge = call.builder.as_edge(other, call)
            return lower_pointwise("mul_scalar", call, edge, float(known))
        found = channel_vector(call, known, other)
        if found is not None:
            channels, axis = found
            edge = call.builder.as_edge(other, call)
            constants = {"weight": channels, "bias": torch.zeros_like(channels)}
            return call.emit(ChannelAffine(axis), [edge], constants)
    return emit_of_two(call, Multiply(), first, second)


def channel_vector(call: Call, known: object, other: object) -> tuple[Tensor, int] | None:
    """Returns `known` as one number per channel of `other`, where it is that, and the axis."""
    if not isinstance(known, Tensor) or not isinstance(other, EdgeName):
        return None
    shape = call.builder.shapes[other]
    padded = (1,) * (len(shape) - known.ndim) + tuple(known.shape)
    if len(shape) < 2 or len(padded) != len(shape):
        return None
    for axis in (1, len(shape) - 1):
        if known.numel() == padded[axis] == shape[axis]:
            return known.reshape(-1), axis
    return None


@lowers("prelu")
def _prelu(call: Call) -> Value:
    """With one slope per channel: `max(x, 0) + slope[c] * min(x, 0)`."""
    slope = call.constant("weight")
    if slope.numel() == 1:
        return lower_pointwise("leaky_relu_scalar", call, None, float(slope))
    positive = call.emit(Clamp(0.0, math.inf), [call.edge("self")])
    negative = call.emit(Clamp(-math.inf, 0.0), [call.edge("self")])
    constants = {"weight": slope, "bias": torch.zeros_like(slope)}
    negative = call.emit(ChannelAffine(), [negative], constants)
    return call.emit(Add((1, 1)), [positive, negative])


@lowers("glu")
def _glu(call: Call) -> Value:
    shape = call.shape("self")
    dim: Any = call["dim"]
    axis = dim % len(shape)
    if axis == 0:
        raise CannotLower("it splits the batch axis")
    half = shape[axis] // 2
    value, gate = (
        call.emit(Slice(axis, start, start + half, 1), [call.edge("self")]) for start in (0, half)
    )
    return call.emit(Multiply(), [value, lower_pointwise("sigmoid", call, gate)])


@lowers("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like", "new_empty")
def _filled(call: Call) -> Value:
    """A tensor that takes only its shape from the input is a constant."""
    target: Any = call.traced.target
    arguments = {**call.arguments, "self": torch.empty(call.traced.meta["val"].shape)}
    return _evaluate(target, arguments)
