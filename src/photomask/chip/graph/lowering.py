"""ATen operators → float operations, one small function each.

A lowering reads the call's arguments by the names of the operator's schema and emits nodes. A
tensor that no input reaches is computed at once, so weights may be computed in the model.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as TracedNode

from photomask.chip.graph.capture import Builder, Call, CannotLower, EdgeName, Lowering, Value
from photomask.chip.graph.operations import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    ChannelAffine,
    Concatenate,
    Convolution,
    Linear,
    Matmul,
    MaxPool,
    Mean,
    Multiply,
    Reshape,
)
from photomask.chip.graph.pointwise import lower_pointwise
from photomask.chip.graph.rearranging import REARRANGING

LOWERINGS: dict[str, Lowering] = dict(REARRANGING)


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
        values = builder.values[source]  # type: ignore[index]
        return values[index] if isinstance(values, tuple) else values  # type: ignore[index]
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
        return _evaluate(target, arguments)
    call = Call(builder, traced, arguments)
    name = target._schema.name.removeprefix("aten::").removesuffix("_")
    lowering = LOWERINGS.get(f"{name}.{target._overloadname}") or LOWERINGS.get(name)
    if lowering is not None:
        return lowering(call)
    return lower_pointwise(name, call)


def _resolve(builder: Builder, value: object) -> object:
    if isinstance(value, TracedNode):
        return builder.values[value]
    if isinstance(value, (list, tuple)):
        return [_resolve(builder, item) for item in value]
    return value


def _reaches_input(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_reaches_input, value))
    return isinstance(value, EdgeName)


def _evaluate(target: Any, arguments: dict[str, object]) -> Value:
    schema = target._schema.arguments
    args = [arguments[a.name] for a in schema if not a.kwarg_only]
    kwargs = {a.name: arguments[a.name] for a in schema if a.kwarg_only}
    return target(*args, **kwargs)


@lowers("conv1d", "conv2d")
def _convolution(call: Call) -> Value:
    weight = call.constant("weight")
    rank = weight.ndim - 2
    stride, dilation = _per_axis(call["stride"], rank), _per_axis(call["dilation"], rank)
    padding = call["padding"]
    if padding == "valid":
        pairs = ((0, 0),) * rank
    elif padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        pairs = tuple((total // 2, total - total // 2) for total in totals)
    else:
        pairs = tuple((p, p) for p in _per_axis(padding, rank))
    bias = call["bias"] if isinstance(call["bias"], Tensor) else torch.zeros(weight.shape[0])
    groups: Any = call["groups"]
    return call.emit(
        Convolution(stride, pairs, dilation, groups),
        [call.edge("input")],
        {"weight": weight, "bias": bias},
    )


def _per_axis(value: object, rank: int) -> tuple[int, ...]:
    values: Any = value if isinstance(value, (list, tuple)) else [value]
    return tuple(values) * rank if len(values) == 1 else tuple(values)


@lowers("linear")
def _linear(call: Call) -> Value:
    if not isinstance(call["weight"], Tensor):
        raise CannotLower("its weight depends on the input")
    weight = call.constant("weight")
    bias = call["bias"] if isinstance(call["bias"], Tensor) else torch.zeros(weight.shape[0])
    return call.emit(Linear(), [call.edge("input")], {"weight": weight, "bias": bias})


@lowers("addmm")
def _addmm(call: Call) -> Value:
    if call["beta"] != 1 or call["alpha"] != 1:
        raise CannotLower("beta and alpha must be 1")
    weight = call.constant("mat2").t()
    bias = call.constant("self").expand(weight.shape[0])
    return call.emit(Linear(), [call.edge("mat1")], {"weight": weight, "bias": bias})


@lowers("matmul", "mm", "bmm")
def _matmul(call: Call) -> Value:
    second = "other" if "other" in call.arguments else "mat2"
    weight = call[second]
    if isinstance(weight, Tensor) and weight.ndim == 2:
        constants = {"weight": weight.t(), "bias": torch.zeros(weight.shape[1])}
        return call.emit(Linear(), [call.edge("self")], constants)
    if min(len(call.shape("self")), len(call.shape(second))) < 3:
        raise CannotLower("both operands need a batch axis and two more")
    return call.emit(Matmul(), [call.edge("self"), call.edge(second)])


@lowers("_native_batch_norm_legit_no_training", "batch_norm")
def _batch_norm(call: Call) -> Value:
    mean, variance = call.constant("running_mean"), call.constant("running_var")
    if call.get("training"):
        raise CannotLower("it normalises by the statistics of the batch")
    scale = torch.rsqrt(variance.double() + call["eps"])  # type: ignore[operator]
    if isinstance(call["weight"], Tensor):
        scale = scale * call.constant("weight").double()
    offset = -mean.double() * scale
    if isinstance(call["bias"], Tensor):
        offset = offset + call.constant("bias").double()
    edge = call.edge("input")
    return call.emit(ChannelAffine(), [edge], {"weight": scale.float(), "bias": offset.float()})


@lowers("add", "sub", "rsub")
def _add(call: Call) -> Value:
    first, second = call["self"], call["other"]
    name = "rsub" if "rsub" in str(call.traced.target) else "sub"
    sign = -1 if "sub" in str(call.traced.target) else 1
    if abs(call.get("alpha", 1)) != 1:  # type: ignore[arg-type]
        raise CannotLower("alpha must be 1 or -1")
    sign *= int(call.get("alpha", 1))  # type: ignore[call-overload]
    if name == "rsub":
        first, second = second, first
    return _sum(call, first, second, sign)


def _sum(call: Call, first: object, second: object, sign: int) -> Value:
    for known, other, known_sign, other_sign in (
        (second, first, sign, 1),
        (first, second, 1, sign),
    ):
        if isinstance(known, (int, float)) or (isinstance(known, Tensor) and known.numel() == 1):
            value = float(known) * known_sign
            edge = call.builder.as_edge(other, call)
            return lower_pointwise("add_scalar", call, edge, value, float(other_sign))
        channels = channel_vector(call, known, other)
        if channels is not None:
            weight = torch.full_like(channels, float(other_sign))
            edge = call.builder.as_edge(other, call)
            constants = {"weight": weight, "bias": channels * known_sign}
            return call.emit(ChannelAffine(), [edge], constants)
    edges = [call.builder.as_edge(value, call) for value in (first, second)]
    return call.emit(Add((1, sign)), edges)


@lowers("mul", "div.Tensor", "div.Scalar", "true_divide")
def _multiply(call: Call) -> Value:
    first, second = call["self"], call["other"]
    if "div" in str(call.traced.target):
        if isinstance(second, EdgeName):
            if isinstance(first, (int, float)):
                edge = lower_pointwise("reciprocal", call, second)
                return lower_pointwise("mul_scalar", call, edge, float(first))
            raise CannotLower("division by an activation has no integer form")
        second = 1.0 / second if isinstance(second, Tensor) else 1.0 / float(second)  # type: ignore[arg-type]
    for known, other in ((second, first), (first, second)):
        if isinstance(known, (int, float)) or (isinstance(known, Tensor) and known.numel() == 1):
            edge = call.builder.as_edge(other, call)
            return lower_pointwise("mul_scalar", call, edge, float(known))
        channels = channel_vector(call, known, other)
        if channels is not None:
            edge = call.builder.as_edge(other, call)
            constants = {"weight": channels, "bias": torch.zeros_like(channels)}
            return call.emit(ChannelAffine(), [edge], constants)
    edges = [call.builder.as_edge(value, call) for value in (first, second)]
    return call.emit(Multiply(), edges)


def channel_vector(call: Call, known: object, other: object) -> Tensor | None:
    """Returns `known` as one number per channel of `other`, where it is that and no more."""
    if not isinstance(known, Tensor) or not isinstance(other, EdgeName):
        return None
    shape = call.builder.shapes[other]
    padded = (1,) * (len(shape) - known.ndim) + tuple(known.shape)
    if len(shape) < 3 or len(padded) != len(shape) or known.numel() != shape[1]:
        return None
    return known.reshape(-1) if padded[1] == shape[1] else None


@lowers("cat", "concatenate")
def _concatenate(call: Call) -> Value:
    rank = len(call.result_shape)
    axis = int(call["dim"]) % rank  # type: ignore[call-overload]
    if axis == 0:
        raise CannotLower("it joins along the batch axis")
    items: Any = call["tensors"]
    if not all(isinstance(item, EdgeName) for item in items):
        raise CannotLower("it joins with a constant tensor")
    return call.emit(Concatenate(axis), list(items))


@lowers("max_pool1d", "max_pool2d", "max_pool2d_with_indices")
def _max_pool(call: Call) -> Value:
    rank = 1 if "max_pool1d" in str(call.traced.target) else 2
    kernel = _per_axis(call["kernel_size"], rank)
    operation = MaxPool(
        kernel,
        _per_axis(call["stride"] or kernel, rank),
        _per_axis(call["padding"], rank),
        _per_axis(call["dilation"], rank),
        bool(call["ceil_mode"]),
    )
    edge = call.emit(operation, [call.edge("self")])
    return (edge,) if "with_indices" in str(call.traced.target) else edge


@lowers("avg_pool1d", "avg_pool2d")
def _average_pool(call: Call) -> Value:
    rank = 1 if "avg_pool1d" in str(call.traced.target) else 2
    kernel = _per_axis(call["kernel_size"], rank)
    divisor: Any = call.get("divisor_override")
    operation = AveragePool(
        kernel,
        _per_axis(call["stride"] or kernel, rank),
        _per_axis(call["padding"], rank),
        bool(call["ceil_mode"]),
        bool(call["count_include_pad"]),
        divisor,
    )
    return call.emit(operation, [call.edge("self")])


@lowers("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_average_pool(call: Call) -> Value:
    sizes: Any = call["output_size"]
    size = tuple(sizes)
    spatial = call.shape("self")[-len(size) :]
    edge = call.edge("self")
    if spatial == size:
        return edge
    if all(n == 1 for n in size):
        rank = len(call.shape("self"))
        return call.emit(Mean(tuple(range(rank - len(size), rank)), True), [edge])
    if any(s % n for s, n in zip(spatial, size, strict=True)):
        return call.emit(AdaptiveAveragePool(size), [edge])
    kernel = tuple(s // n for s, n in zip(spatial, size, strict=True))
    return call.emit(AveragePool(kernel, kernel, (0,) * len(size), False, True, None), [edge])


@lowers("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max_pool(call: Call) -> Value:
    sizes: Any = call["output_size"]
    spatial = call.shape("self")[-len(sizes) :]
    if any(s % n for s, n in zip(spatial, sizes, strict=True)):
        raise CannotLower(f"{spatial} elements do not divide into {tuple(sizes)} equal windows")
    kernel = tuple(s // n for s, n in zip(spatial, sizes, strict=True))
    ones = (1,) * len(kernel)
    edge = call.emit(MaxPool(kernel, kernel, (0,) * len(kernel), ones, False), [call.edge("self")])
    return (edge,)


@lowers("mean.dim", "sum.dim_IntList")
def _mean(call: Call) -> Value:
    rank = len(call.shape("self"))
    dims: Any = call["dim"]
    axes = tuple(sorted(axis % rank for axis in (dims if dims is not None else range(rank))))
    if 0 in axes or not axes:
        raise CannotLower("it reduces over the batch axis")
    divide = "mean" in str(call.traced.target)
    return call.emit(Mean(axes, bool(call["keepdim"]), divide), [call.edge("self")])


@lowers("amax")
def _amax(call: Call) -> Value:
    shape = call.shape("self")
    dims: Any = call["dim"]
    axes = sorted(axis % len(shape) for axis in dims)
    if axes != list(range(len(shape) - len(axes), len(shape))) or len(axes) > 2 or len(shape) < 3:
        raise CannotLower("only the maximum over the last one or two axes has an integer form")
    kernel = tuple(shape[axis] for axis in axes)
    ones = (1,) * len(kernel)
    pooled = call.emit(
        MaxPool(kernel, kernel, (0,) * len(kernel), ones, False), [call.edge("self")]
    )
    if call["keepdim"]:
        return pooled
    return call.emit(Reshape(tuple(shape[1 : -len(axes)])), [pooled])


@lowers("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like", "new_empty")
def _filled(call: Call) -> Value:
    """A tensor that takes only its shape from the input is a constant."""
    target: Any = call.traced.target
    arguments = {**call.arguments, "self": torch.empty(call.traced.meta["val"].shape)}
    return _evaluate(target, arguments)
