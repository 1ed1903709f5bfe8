"""Defines the real value of one unit of an accumulator, and the ratio that rescales it to codes.

An accumulator holds integers. The real value of one unit follows from what the operation
accumulates (`Operation.accumulates`):

| it accumulates | one unit is | |---|---| | `CODES` | the scale of the input | | `WEIGHTED` | the
scale of the input times that of the weight, for each output channel | | `PRODUCTS` | the product of
the two inputs' scales, times the operation's factor | | `ALIGNED` | the scale of the output over
`2**shift` | | `SHARES` | `2**-EXPONENT_BITS` | | `NORMALS` | the scale of the gain times the unit
of a normalized number, for each channel |

This is the only definition. Training, calibration, alignment, conversion, import and verification
all use it. The integers themselves are different: verification computes them independently of
conversion.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

from photomask.chip.graph.operations import Accumulates, Operation
from photomask.chip.operators.normalize import normal_unit
from photomask.chip.operators.softmax import EXPONENT_BITS
from photomask.chip.target import Target
from photomask.errors import UsageError

Number = TypeVar("Number", float, np.ndarray, Tensor)

SHARE_UNIT = 2.0**-EXPONENT_BITS
"""The real value of one unit of a softmax's accumulator."""


def accumulator_unit(
    operation: Operation, scales: Sequence[Number], weight: Number | None = None
) -> Number:
    """Returns the real value of one unit of an accumulator of codes or products of codes.

    Args:
        operation: an operation that accumulates codes or products of codes.
        scales: the scales of the inputs, in their order.
        weight: the scale of the codes of the weight or gain, if the operation has one. For a weight
            with groups it is the scale that the groups of a channel share.

    Raises:
        UsageError: the operation accumulates something else, or the scale of its weight is missing.
    """
    match operation.accumulates:
        case Accumulates.CODES:
            return scales[0]
        case Accumulates.PRODUCTS:
            return scales[0] * scales[1] * operation.product_factor
        case Accumulates.WEIGHTED if weight is not None:
            return weight * scales[0]
    raise UsageError(
        f"the unit of the accumulator of {operation.kind} does not follow from the scales of its "
        "inputs"
        + (" alone, because its weight has a scale too; pass weight" if weight is None else "")
    )


def aligned_unit(output: np.ndarray, shift: int) -> np.ndarray:
    """Returns the real value of one unit of a sum whose inputs were brought to one scale.

    Args:
        output: the scale of the result, [1] or [channels].
        shift: the bits by which the result is shifted right.
    """
    return np.ldexp(output, -shift)


def normals_unit(gain: Number, terms: int, target: Target) -> Number:
    """Returns the real value of one unit of a norm's accumulator, for each channel.

    Args:
        gain: the scale of the gain's codes.
        terms: the number of elements of a row.
        target: its accumulator determines the bits of a normalized number.
    """
    return gain * normal_unit(terms, target)


def ratio_of(
    unit: float | np.ndarray, output: float | np.ndarray, divisors: float | np.ndarray = 1.0
) -> np.ndarray:
    """Returns how many codes of the output one unit of the accumulator is worth.

    Args:
        unit: the real value of one unit of the accumulator.
        output: the scale of the output.
        divisors: the numbers of elements by which sums become averages; 1 if nothing is divided.
    """
    return np.asarray(unit / (divisors * output))
