"""Converts float operations to integer steps."""

import math

import numpy as np
from torch import Tensor

from photomask.chip.arithmetic import FixedPoint, fixed_point
from photomask.chip.conversion import pooling, tables, transformers
from photomask.chip.conversion.builder import ONE, Conversion, Scale, integer_codes
from photomask.chip.conversion.factors import has_common_factors
from photomask.chip.conversion.registry import convert_node, converts
from photomask.chip.conversion.transformers import coded_constant
from photomask.chip.formats import Interval, IntFormat
from photomask.chip.graph import Node
from photomask.chip.graph import operations as float_operations
from photomask.chip.graph.operations import IntegerUse
from photomask.chip.operators import (
    Add,
    Clamp,
    Concatenate,
    Constant,
    Convolution,
    Gather,
    Linear,
    Matmul,
    MaxPool,
    Multiply,
    Operator,
    Pad,
    Permute,
    Reshape,
    Slice,
)
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Edge
from photomask.chip.quantizers import PerGroup, Quantizer
from photomask.chip.target import Target, ZeroPoints
from photomask.chip.units import accumulator_unit, aligned_unit, ratio_of
from photomask.errors import TargetError

FILES = (pooling, tables, transformers)
"""The other files that register converters."""

__all__ = ["FILES", "aligned_coefficients", "convert_node"]


@converts(float_operations.Input)
def _input(conversion: Conversion, node: Node, operation: float_operations.Input) -> None:
    scale = conversion.scale_of(node.name)
    conversion.edges[node.name] = Edge(
        name=node.name,
        shape=node.shape,
        format=scale.format,
        low=scale.format.low,
        high=scale.format.high,
        scale=(scale.scale,),
        zero_point=scale.zero_point,
        role="input",
    )


@converts(float_operations.Tokens)
def _integer_input(conversion: Conversion, node: Node, operation: float_operations.Tokens) -> None:
    """Adds an input of integers: row indices of a table, or the 0 and 1 of a mask.

    Where several tables are indexed, the shortest limits the indices.
    """
    prepared = conversion.prepared
    counts = []
    hides = False
    for reader in prepared.graph.nodes:
        uses = {
            reader.operation.use_of_integers(position)
            for position, name in enumerate(reader.inputs)
            if prepared.scale_owner(name) == node.name
        }
        if IntegerUse.ROWS in uses:
            counts.append(len(prepared.constants_of(reader)["table"]))
        hides = hides or IntegerUse.MASK in uses
    if hides and not counts:
        counts = [2]
    if not counts:
        raise TargetError(
            f"the input {node.name!r} is an integer tensor, but is neither the indices of an "
            "embedding nor a mask; no other use of integer inputs has an integer form"
        )
    conversion.rows.add(node.name)
    interval = Interval(0, min(counts) - 1)
    conversion.edges[node.name] = Edge(
        name=node.name,
        shape=node.shape,
        format=IntFormat.holding(interval),
        low=interval.low,
        high=interval.high,
        scale=(1.0,),
        zero_point=0,
        role="input",
    )


@converts(float_operations.Constant)
def _constant(conversion: Conversion, node: Node, operation: float_operations.Constant) -> None:
    scale = conversion.scale_of(node.name)
    tensors, _ = conversion.add_given(node) or coded_constant(conversion, node, "value")
    conversion.add_step(node, node.name, Constant(), [], tensors, scale)


@converts(float_operations.Copy)
def _copy(conversion: Conversion, node: Node, operation: float_operations.Copy) -> None:
    x, y = conversion.scale_of(node.inputs[0]), conversion.scale_of(node.name)
    ratio = ONE * ratio_of(accumulator_unit(node.operation, [x.scale]), y.scale)
    conversion.requantize(node, node.inputs[0], ratio, y, offset=-x.zero_point)


@converts(float_operations.Convolution, float_operations.Linear)
def _weighted(
    conversion: Conversion,
    node: Node,
    operation: float_operations.Convolution | float_operations.Linear,
) -> None:
    """Converts a convolution or a linear layer, with one bias and one rescaling per channel.

    `acc = sum w * x + b` with `b = round(bias / (s_w * s_x)) - z_x * sum w`, so that
    `acc * s_w * s_x` is the real result.
    """
    x, y = conversion.scale_of(node.inputs[0]), conversion.scale_of(node.name)
    tensors, unit = conversion.add_given(node) or _weight_tensors(conversion, node, x)
    operator = _weighted_operator(operation, x)
    accumulator = conversion.add_step(
        node, f"{node.name}.accumulator", operator, node.inputs, tensors, unit
    )
    trailing = 0 if node.operation.channel_axis == -1 else len(node.shape) - 2
    ratio = ratio_of(unit, y.scale).reshape(-1, *(1,) * trailing)
    conversion.requantize(node, accumulator, ratio, y)


def _weighted_operator(
    operation: float_operations.Convolution | float_operations.Linear, x: Scale
) -> Operator:
    if isinstance(operation, float_operations.Linear):
        return Linear()
    return Convolution(
        stride=operation.stride,
        padding=operation.padding,
        dilation=operation.dilation,
        groups=operation.groups,
        padding_value=x.zero_point,
    )


def _weight_tensors(
    conversion: Conversion, node: Node, x: Scale
) -> tuple[dict[str, str], np.ndarray]:
    """Returns the constant tensors and the real value of one accumulator unit, [1] or [O]."""
    quantizer = conversion.prepared.weight_quantizer(node.name)
    constants = conversion.prepared.constants_of(node)
    where = f"weight of {node.name!r} ({node.source})"
    codes = integer_codes(quantizer, constants["weight"], where)
    _check_weight_format(conversion, quantizer, where)
    tensors = {"weight": conversion.add_shared(node, "weight", quantizer, codes, quantizer.format)}
    scale = quantizer.scale
    if isinstance(quantizer.granularity, PerGroup):
        scale, multiplier = quantizer.two_levels()
        multiplier = _even_groups(multiplier, quantizer.granularity.size, codes.shape[1])
        key = "group_multiplier"
        format = IntFormat(bits=quantizer.granularity.multiplier_bits, signed=False)
        tensors[key] = conversion.add_shared(node, "weight", quantizer, multiplier, format, key)
    zero_point = quantizer.zero_point.detach().cpu().numpy()
    if zero_point.any():
        spread = np.broadcast_to(zero_point.reshape(-1), codes.shape[:1])
        key = "weight_zero_point"
        tensors[key] = conversion.add_shared(node, "weight", quantizer, spread, part=key)
    codes_scale = scale.detach().double().cpu().numpy().reshape(-1)
    unit = accumulator_unit(node.operation, [np.array(x.scale)], codes_scale)
    bias = constants["bias"].detach().double().cpu().numpy()
    rounded = np.rint(bias / unit)
    weight = effective_weight(
        {role: conversion.tensors[key] for role, key in tensors.items()}
        | {"bias": np.zeros(len(bias), dtype=np.int64)}
    )
    corrected = rounded - x.zero_point * weight.reshape(len(weight), -1).sum(axis=1)
    tensors["bias"] = _bias_tensor(conversion, node, corrected)
    return tensors, unit


def _check_weight_format(conversion: Conversion, quantizer: Quantizer, where: str) -> None:
    target = conversion.target
    if quantizer.format.bits not in target.weight_bits:
        raise TargetError(
            f"{where} has {quantizer.format.bits} bits, but weights of the target {target.name!r} "
            f"have {', '.join(map(str, target.weight_bits))}; change the recipe's bits"
        )
    if target.zero_points is not ZeroPoints.ALL and bool(quantizer.zero_point.any()):
        raise TargetError(
            f"{where} is affine, but the target {target.name!r} has no zero points of weights; use "
            "symmetric weights, or a target with zero_points 'all'"
        )


def _bias_tensor(conversion: Conversion, node: Node, bias: np.ndarray) -> str:
    format = IntFormat(bits=conversion.target.bias_bits, signed=True)
    if bias.min() < format.low or bias.max() > format.high:
        channel = int(np.argmax(np.abs(bias)))
        raise TargetError(
            f"bias of {node.name!r} ({node.source}): channel {channel} is {bias[channel]:.0f} in "
            f"units of input scale times weight scale, which the target's {format} cannot hold; "
            "give the weights a larger scale (fewer bits, per tensor) or the target wider biases"
        )
    return conversion.add_tensor(f"{node.name}.bias", bias.astype(np.int64), format)


def _even_groups(multiplier: Tensor, size: int, channels: int) -> np.ndarray:
    """Returns multipliers for groups of equal size, [O, groups], and splits groups where needed.

    Args:
        multiplier: the multipliers of groups of which the last may be smaller, int64 [O, G].
        size: the input channels of a group.
        channels: the input channels of the layer.
    """
    spread = multiplier.repeat_interleave(size, dim=1)[:, :channels]
    size = math.gcd(size, channels)
    return spread[:, ::size].cpu().numpy()


@converts(float_operations.Matmul)
def _matmul(conversion: Conversion, node: Node, operation: float_operations.Matmul) -> None:
    a, b = (conversion.scale_of(name) for name in node.inputs)
    terms = conversion.edges[node.inputs[0]].shape[-1]
    operator = Matmul(zero_points=(a.zero_point, b.zero_point), terms=terms)
    _product(conversion, node, operator)


@converts(float_operations.Multiply)
def _multiply(conversion: Conversion, node: Node, operation: float_operations.Multiply) -> None:
    a, b = (conversion.scale_of(name) for name in node.inputs)
    operator = Multiply(zero_points=(a.zero_point, b.zero_point))
    _product(conversion, node, operator)


def _product(conversion: Conversion, node: Node, operator: Operator) -> None:
    y, scales = conversion.scale_of(node.name), [conversion.scale_of(n).scale for n in node.inputs]
    unit = ONE * accumulator_unit(node.operation, scales)
    accumulator = conversion.add_step(
        node, f"{node.name}.accumulator", operator, node.inputs, {}, unit
    )
    conversion.requantize(node, accumulator, ratio_of(unit, y.scale), y)


@converts(float_operations.Add, reads_factors=has_common_factors)
def _add(conversion: Conversion, node: Node, operation: float_operations.Add) -> None:
    """Adds the steps of a sum.

    Integer coefficients bring the inputs to the scale `s_y / 2**shift`; the products are added and
    shifted. The coefficients have as many bits as the accumulator leaves for them.
    """
    y = conversion.scale_of(node.name)
    inputs = [conversion.scale_of(name) for name in node.inputs]
    ratios = np.array([x.scale / y.scale for x in inputs])
    target, where = conversion.target, f"{node.name!r} ({node.source})"
    widest = max(x.format.bits for x in inputs)
    if target.power_of_two_only:
        _, exponent = np.frexp(ratios.min())
        shift = max(target.shift_min, 1 - int(exponent))
        coefficients = np.ldexp(ratios, shift)
        spare = _spare_bits(len(inputs), widest, target, where)
        if np.any(coefficients != np.rint(coefficients)) or coefficients.max() >= 2**spare:
            raise TargetError(
                f"{where}: the ratios of its inputs' scales must be powers of two that fit the "
                f"accumulator of the target {target.name!r}; found {ratios.tolist()} relative to "
                "the output. Use a recipe with power-of-two scales ('w8a8-po2')"
            )
        coefficients, error = coefficients.astype(np.int64), 0.0
    else:
        fixed = aligned_coefficients(ratios, widest, target, where)
        coefficients = fixed.multiplier
        shift = int(fixed.shift[0])
        error = fixed.relative_error
    signed = [int(c) * sign for c, sign in zip(coefficients, operation.signs, strict=True)]
    bias = -sum(c * x.zero_point for c, x in zip(signed, inputs, strict=True))
    operator = Add(coefficients=tuple(signed), bias=bias)
    only_shift = FixedPoint(np.ones(1, dtype=np.int64), np.full(1, shift, dtype=np.int64), error)
    common = has_common_factors(conversion, node)
    unit = aligned_unit(np.array(y.scales) if common else ONE * y.scale, shift)
    accumulator = conversion.add_step(
        node, f"{node.name}.accumulator", operator, node.inputs, {}, unit
    )
    conversion.requantize(node, accumulator, ONE, y, shift=only_shift, has_factors=common)


def aligned_coefficients(ratios: np.ndarray, widest: int, target: Target, where: str) -> FixedPoint:
    """Returns the coefficients of a sum, which share one shift, as wide as the accumulator allows.

    Args:
        ratios: the inputs' scales divided by the output's scale.
        widest: the bits of the widest input.
        target: the target, whose multipliers and accumulator limit the coefficients.
        where: a description of the sum, for errors.

    Raises:
        TargetError: the accumulator leaves fewer than 2 bits for the coefficients.
    """
    bits = min(target.multiplier_bits, _spare_bits(len(ratios), widest, target, where))
    update = {"multiplier_bits": bits, "per_channel_shift": False}
    return fixed_point(ratios, target.model_copy(update=update), where)


def _spare_bits(count: int, widest: int, target: Target, where: str) -> int:
    """Returns the number of bits that the accumulator of a sum leaves for its coefficients."""
    spare = target.accumulator_bits - 2 - widest - (count - 1).bit_length()
    if min(target.multiplier_bits, spare) < 2:
        raise TargetError(
            f"{where}: adding {count} inputs of {widest} bits leaves {spare} bits of the "
            f"target's {target.accumulator_bits}-bit accumulator for aligning their scales, which "
            "needs 2 or more; give the inputs fewer bits"
        )
    return spare


@converts(float_operations.Concatenate)
def _concatenate(
    conversion: Conversion, node: Node, operation: float_operations.Concatenate
) -> None:
    y = conversion.scale_of(node.name)
    inputs = []
    for position, name in enumerate(node.inputs):
        x = conversion.scale_of(name)
        if x != y:
            name = conversion.requantize(
                node,
                name,
                ONE * ratio_of(accumulator_unit(operation, [x.scale]), y.scale),
                y,
                name=f"{node.name}.input{position}",
                offset=-x.zero_point,
            )
        inputs.append(name)
    conversion.add_step(node, node.name, Concatenate(axis=operation.axis), inputs, {}, y)


@converts(
    float_operations.Reshape,
    float_operations.Permute,
    float_operations.Slice,
    float_operations.Pad,
    float_operations.Clamp,
    float_operations.Gather,
    float_operations.MaxPool,
)
def _moved(
    conversion: Conversion,
    node: Node,
    operation: float_operations.Reshape
    | float_operations.Permute
    | float_operations.Slice
    | float_operations.Pad
    | float_operations.Clamp
    | float_operations.Gather
    | float_operations.MaxPool,
) -> None:
    """Converts operations that move or select values, whose outputs keep codes and scale."""
    scale = conversion.scale_of(node.name)
    tensors: dict[str, str] = {}
    match operation:
        case float_operations.Reshape(shape):
            operator: Operator = Reshape(shape=shape)
        case float_operations.Permute(order):
            operator = Permute(order=order)
        case float_operations.Slice(axis, start, stop, step):
            operator = Slice(axis=axis, start=start, stop=stop, step=step)
        case float_operations.Pad(amounts, value):
            operator = Pad(amounts=amounts, value=scale.code(value))
        case float_operations.Clamp(low, high):
            operator = Clamp(low=scale.code(low), high=scale.code(high))
        case float_operations.Gather(axis, index):
            operator = Gather(axis=axis)
            tensors["index"] = conversion.add_tensor(f"{node.name}.index", np.array(index))
        case float_operations.MaxPool():
            operator = MaxPool(
                kernel=operation.kernel,
                stride=operation.stride,
                padding=operation.padding,
                dilation=operation.dilation,
                output_size=node.shape[-len(operation.kernel) :],
            )
    conversion.add_step(node, node.name, operator, node.inputs, tensors, scale)
