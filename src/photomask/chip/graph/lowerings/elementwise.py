"""Lowers sums and products of two operands, and operators that consist of them."""

import math
from typing import Any

import torch
from torch import Tensor

from photomask.chip.graph.builder import Call, CannotLower, EdgeName, Value, evaluate
from photomask.chip.graph.lowerings.masking import added_to_scores, computed_mask
from photomask.chip.graph.lowerings.pointwise import lower_pointwise
from photomask.chip.graph.lowerings.registry import BatchAxis, lowers
from photomask.chip.graph.lowerings.rows import emit_of_two
from photomask.chip.graph.operations import Add, ChannelAffine, Clamp, Multiply, Slice


@lowers("add", "sub", "rsub", "subtract", batch=BatchAxis.BROADCASTS, is_fresh=True)
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
    return lower_sum(call, first, second, sign)


def lower_sum(call: Call, first: object, second: object, sign: int) -> Value:
    """Returns the lowered `first + sign * second`; either may be a constant or a mask."""
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
            made_of = {"weight": (), "bias": (channels,)}
            return call.emit(ChannelAffine(axis), [edge], constants, made_of)
    masked = added_to_scores(call, first, second) if sign == 1 else None
    if masked is not None:
        return masked
    return emit_of_two(call, Add((1, sign)), first, second)


@lowers(
    "mul",
    "multiply",
    "div.Tensor",
    "div.Scalar",
    "divide.Tensor",
    "divide.Scalar",
    "true_divide",
    batch=BatchAxis.BROADCASTS,
    is_fresh=True,
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
            return call.emit(ChannelAffine(axis), [edge], constants, {"bias": ()})
    return emit_of_two(call, Multiply(), first, second)


def channel_vector(call: Call, known: object, other: object) -> tuple[Tensor, int] | None:
    """Returns a constant with one number per channel of `other` as a vector, and the axis.

    None stands for other constants.
    """
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
    """Lowers a PReLU; with one slope per channel it is `max(x, 0) + slope[c] * min(x, 0)`."""
    slope = call.constant("weight")
    if slope.numel() == 1:
        return lower_pointwise("leaky_relu_scalar", call, None, float(slope))
    positive = call.emit(Clamp(0.0, math.inf), [call.edge("self")])
    negative = call.emit(Clamp(-math.inf, 0.0), [call.edge("self")])
    constants = {"weight": slope, "bias": torch.zeros_like(slope)}
    negative = call.emit(ChannelAffine(), [negative], constants, {"bias": ()})
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
    """Returns a constant for an operator that takes only the shape of its input."""
    arguments = {**call.arguments, "self": torch.empty(call.traced.meta["val"].shape)}
    return evaluate(call.traced.target, arguments)
