"""Converts softmax, norms and embeddings to integer steps."""

import math

import numpy as np

from photomask.chip.conversion.builder import ONE, Conversion, integer_codes
from photomask.chip.conversion.registry import always, converts
from photomask.chip.formats import IntFormat
from photomask.chip.graph import Node
from photomask.chip.graph import operations as float_operations
from photomask.chip.operators import Embedding, Normalize, Softmax
from photomask.chip.operators.normalize import (
    GAIN_BITS,
    normal_epsilon,
    normal_fraction_bits,
    normal_unit,
)
from photomask.chip.operators.softmax import EXPONENT_BITS, RECIPROCAL_BITS
from photomask.chip.units import SHARE_UNIT, normals_unit, ratio_of
from photomask.chip.zero_ranges import BIAS_UNIT
from photomask.errors import TargetError


@converts(float_operations.Softmax)
def _softmax(conversion: Conversion, node: Node, operation: float_operations.Softmax) -> None:
    """Adds a softmax with a table of exponentials, and the requantization of its accumulator.

    The table is indexed by the distance of a code from the largest code of its row. Exponentials
    beyond the end of the table would round to 0.
    """
    x, y = conversion.scale_of(node.inputs[0]), conversion.scale_of(node.name)
    codes = x.format.high - x.format.low + 1
    needed = math.ceil((EXPONENT_BITS + 1) * math.log(2) / x.scale) + 1
    entries = min(codes, needed)
    if entries > conversion.target.table_entries:
        raise TargetError(
            f"{node.name!r} ({node.source}): the exponentials of its scores need a table of "
            f"{entries} entries, but tables of the target {conversion.target.name!r} have at most "
            f"{conversion.target.table_entries}. Give the scores fewer bits"
        )
    distance = np.arange(entries, dtype=np.float64)
    table = np.rint(np.ldexp(np.exp(-distance * x.scale), EXPONENT_BITS)).astype(np.int64)
    if len(table) < codes:
        table[-1] = 0
    format = IntFormat(bits=EXPONENT_BITS + 1, signed=False)
    tensors = {"table": conversion.add_tensor(f"{node.name}.table", table, format)}
    constants = conversion.prepared.constants_of(node)
    if "mask" in constants:
        mask = (constants["mask"].detach().cpu().numpy() != 0).astype(np.int64)
        tensors["mask"] = conversion.add_tensor(f"{node.name}.mask", mask)
    operator = Softmax(fraction_bits=EXPONENT_BITS, reciprocal_bits=RECIPROCAL_BITS)
    unit = ONE * SHARE_UNIT
    accumulator = conversion.add_step(
        node,
        f"{node.name}.accumulator",
        operator,
        node.inputs,
        tensors,
        unit,
        worst_error=_worst_share(node.shape[-1]),
    )
    conversion.requantize(node, accumulator, ratio_of(unit, y.scale), y)


def _worst_share(terms: int) -> float:
    """Returns the worst error of a softmax output for given codes, in units of the accumulator.

    The exponential of the largest score is exact, and every other is within 1/2 unit. The sum of a
    row, which is at least 1, is therefore within 1/2 unit for each of the others. The rounding of
    the operator itself is added.

    Args:
        terms: the length of a row.
    """
    return 0.5 * terms + 0.5 + 2.0 ** (2 * EXPONENT_BITS - RECIPROCAL_BITS)


@converts(float_operations.Normalize, reads_factors=always)
def _normalize(conversion: Conversion, node: Node, operation: float_operations.Normalize) -> None:
    """Adds a norm with an integer gain per channel, and the requantization per channel."""
    x, y = conversion.scale_of(node.inputs[0]), conversion.scale_of(node.name)
    terms = node.shape[-1]
    fraction_bits = normal_fraction_bits(conversion.target)
    if fraction_bits < 4:
        raise TargetError(
            f"{node.name!r} ({node.source}): a norm needs an accumulator of at least "
            f"{GAIN_BITS + 7} bits, but that of the target {conversion.target.name!r} has "
            f"{conversion.target.accumulator_bits}; convert for a target with a wider one"
        )
    operator = Normalize(
        terms=terms,
        centred=operation.centred,
        zero_point=x.zero_point,
        epsilon=normal_epsilon(operation.epsilon, terms, operation.centred, x.scale),
        fraction_bits=fraction_bits,
    )
    tensors, unit = conversion.add_given(node) or _gain_tensors(conversion, node)
    if x.factors:
        shifts = np.array(x.factors)
        tensors["channel_shift"] = conversion.add_tensor(f"{node.name}.channel_shift", shifts)
    accumulator = conversion.add_step(
        node, f"{node.name}.accumulator", operator, node.inputs, tensors, unit
    )
    conversion.requantize(node, accumulator, ratio_of(unit, y.scale), y)


def _gain_tensors(conversion: Conversion, node: Node) -> tuple[dict[str, str], np.ndarray]:
    """Adds gain and bias, and returns their names and the unit of the accumulator, [channels]."""
    constants = conversion.prepared.constants_of(node)
    gain, bias = (constants[role].detach().double().cpu().numpy() for role in ("gain", "bias"))
    unit_of_normal = normal_unit(node.shape[-1], conversion.target)
    largest_bias = 2.0 ** (conversion.target.accumulator_bits - 3)
    scale = np.maximum(
        np.abs(gain) / (2 ** (GAIN_BITS - 1) - 1), np.abs(bias) / (largest_bias * unit_of_normal)
    )
    step = min(conversion.scale_of(node.name).scales)
    gained = scale[gain != 0]
    # A channel with a gain of 0 gets the unit of the others, so that its bias is as precise.
    wanted = gained.max() if gained.size else step * BIAS_UNIT / unit_of_normal
    scale = np.where(gain == 0, np.maximum(scale, wanted), scale)
    unit = normals_unit(scale, node.shape[-1], conversion.target)
    codes = {
        "gain": (np.rint(gain / scale), GAIN_BITS),
        "bias": (np.rint(bias / unit), conversion.target.bias_bits),
    }
    tensors = {
        role: conversion.add_tensor(
            f"{node.name}.{role}", values, IntFormat(bits=bits, signed=True)
        )
        for role, (values, bits) in codes.items()
    }
    return tensors, unit


def coded_constant(
    conversion: Conversion, node: Node, role: str
) -> tuple[dict[str, str], np.ndarray]:
    """Adds the codes of a constant or a table in the output's format; the unit is 1."""
    format = conversion.scale_of(node.name).format
    quantizer = conversion.prepared.activation_quantizer(node.name)
    value = conversion.prepared.constants_of(node)[role]
    codes = integer_codes(quantizer, value, f"{role} of {node.name!r}")
    return {role: conversion.add_shared(node, role, quantizer, codes, format)}, ONE


@converts(float_operations.Embedding)
def _embedding(conversion: Conversion, node: Node, operation: float_operations.Embedding) -> None:
    """Adds an embedding with a table of codes."""
    y = conversion.scale_of(node.name)
    tensors, _ = conversion.add_given(node) or coded_constant(conversion, node, "table")
    conversion.add_step(node, node.name, Embedding(), node.inputs, tensors, y)
