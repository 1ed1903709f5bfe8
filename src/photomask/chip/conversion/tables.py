"""Converts functions of one number to tables.

A table has an entry for each code, or fewer entries with linear interpolation between them.
"""

import numpy as np
import torch

from photomask.chip.arithmetic import FixedPoint
from photomask.chip.conversion.builder import ONE, Conversion, Scale, integer_codes
from photomask.chip.conversion.registry import converts
from photomask.chip.formats import IntFormat
from photomask.chip.graph import Node
from photomask.chip.graph.operations import Pointwise
from photomask.chip.operators import Interpolate, Lookup
from photomask.errors import TargetError

GUARD_BITS = 8
"""The bits of an interpolated table's entries below the result's last place, if they fit."""


@converts(Pointwise)
def convert_pointwise(conversion: Conversion, node: Node, operation: Pointwise) -> None:
    """Adds the table of a function, interpolated where the target's tables have too few entries."""
    x, target = conversion.scale_of(node.inputs[0]), conversion.target
    codes = x.format.high - x.format.low + 1
    if codes <= target.table_entries:
        _whole_table(conversion, node)
        return
    step_bits = 1
    while codes >> step_bits > target.table_entries:
        step_bits += 1
    _interpolated_table(conversion, node, step_bits)


def _whole_table(conversion: Conversion, node: Node) -> None:
    """Adds a table of `quantize(f(dequantize(code)))` for every input code, made in float64."""
    x, y = conversion.scale_of(node.inputs[0]), conversion.scale_of(node.name)
    codes = torch.arange(x.format.low, x.format.high + 1, dtype=torch.float64)
    values = _function(node, codes, x)
    quantizer = conversion.prepared.activation_quantizer(node.name)
    table = integer_codes(quantizer, _numbers(values), f"table of {node.name!r}")
    tensors = {"table": conversion.add_tensor(f"{node.name}.table", table, y.format)}
    error = _worst_error(values, table, y)
    operator = Lookup(first=x.format.low)
    conversion.add_step(node, node.name, operator, node.inputs, tensors, y, worst_error=error)


def _interpolated_table(conversion: Conversion, node: Node, step_bits: int) -> None:
    """Adds an interpolated table and the requantization of the interpolated values.

    The entries have extra bits below the result's last place. They may lie outside the result's
    format by up to its width, so that the interpolated values saturate where the function does.
    """
    x, y = conversion.scale_of(node.inputs[0]), conversion.scale_of(node.name)
    spare = conversion.target.accumulator_bits - 3 - y.format.bits - step_bits
    guard = min(GUARD_BITS, spare, conversion.target.shift_max - step_bits)
    guard = max(guard, conversion.target.shift_min - step_bits)
    if not 0 <= guard <= spare:
        raise TargetError(
            f"{node.name!r} ({node.source}): interpolation between table entries 2**{step_bits} "
            f"codes apart needs {step_bits + 3 + y.format.bits} bits or more, but the accumulator "
            f"of the target {conversion.target.name!r} has {conversion.target.accumulator_bits}. "
            "Use fewer activation bits there, or more table_entries"
        )
    places = torch.arange(
        x.format.low, x.format.high + 2, 1 << step_bits, dtype=torch.float64
    )  # one beyond the last code
    reach = y.format.high - y.format.low + 1
    values = _numbers(_function(node, places, x)).numpy() / y.scale
    values = values.clip(y.format.low - y.zero_point - reach, y.format.high - y.zero_point + reach)
    format = IntFormat(bits=y.format.bits + 2 + guard, signed=True)
    entries = np.rint(np.ldexp(values, guard)).clip(format.low, format.high)
    tensors = {"table": conversion.add_tensor(f"{node.name}.table", entries, format)}
    shift = step_bits + guard
    accumulator = conversion.add_step(
        node,
        f"{node.name}.accumulator",
        Interpolate(first=x.format.low, step_bits=step_bits),
        node.inputs,
        tensors,
        ONE * y.scale * 2.0**-shift,
    )
    only_shift = FixedPoint(np.ones(1, dtype=np.int64), np.full(1, shift, dtype=np.int64), 0.0)
    conversion.requantize(node, accumulator, ONE, y, shift=only_shift)
    error = _error_of_lines(conversion, node, x, y)
    conversion.steps[-1] = conversion.steps[-1].model_copy(update={"worst_error": error})


def _error_of_lines(conversion: Conversion, node: Node, x: Scale, y: Scale) -> float:
    """Returns the worst error of the two steps that were added last, over all input codes."""
    codes = np.arange(x.format.low, x.format.high + 1)
    found = codes
    for step in conversion.steps[-2:]:
        parameters = {role: conversion.tensors[name] for role, name in step.tensors.items()}
        found = step.operator.run_numpy([found[None]], parameters)[0]
    return _worst_error(_function(node, torch.from_numpy(codes).double(), x), found, y)


def _function(node: Node, codes: torch.Tensor, x: Scale) -> torch.Tensor:
    return node.operation.compute([(codes - x.zero_point) * x.scale], {})


def _worst_error(values: torch.Tensor, codes: np.ndarray, y: Scale) -> float:
    """Returns the largest distance of codes from real values, in units of the code's last place.

    Values beyond the format are clamped to its ends first, and NaN is ignored.
    """
    wanted = (values.numpy() / y.scale + y.zero_point).clip(y.format.low, y.format.high)
    distance = np.abs(codes - wanted)[np.isfinite(wanted)]
    return float(distance.max()) if distance.size else 0.0


def _numbers(values: torch.Tensor) -> torch.Tensor:
    """Returns the values with each NaN replaced by the nearest entry that is a number.

    An example is the square root of a negative code. Calibration data never reached that code,
    because calibration refuses NaN.
    """
    number = ~torch.isnan(values)
    if bool(number.all()) or not bool(number.any()):
        return values
    inside = number.nonzero().reshape(-1)
    positions = torch.arange(len(values))
    after = torch.searchsorted(inside, positions).clamp(max=len(inside) - 1)
    above, below = inside[after], inside[(after - 1).clamp(min=0)]
    return values[torch.where((positions - below).abs() <= (above - positions).abs(), below, above)]
