"""What one unit of an accumulator stands for, and what rescales it to codes of the output.

An accumulator holds integers. The real value of one of them follows from what is accumulated
(`Operation.accumulates`):

| it accumulates | one unit is |
|---|---|
| `CODES` | the scale of the input |
| `WEIGHTED` | the scale of the input times that of the weight, for each output channel |
| `PRODUCTS` | the product of the two inputs' scales, times the operation's factor |
| `ALIGNED` | the scale of the output over `2**shift` |
| `SHARES` | `2**-EXPONENT_BITS` |
| `NORMALS` | the scale of the gain times the unit of a normalised number, for each channel |

This is a fact and no opinion: training, calibration, alignment, conversion, import and verification
all ask here. What two of them must find independently of each other is the integers.
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
"""What one unit of a softmax's accumulator stands for."""


def accumulator_unit(
    operation: Operation, scales: Sequence[Number], weight: Number | None = None
) -> Number:
    """Returns the real value of one unit of what an operation accumulates of its inputs' codes.

    Args:
        operation: one that accumulates codes or products of codes.
        scales: of the inputs, in their order.
        weight: the scale of the weight's or gain's codes, where the operation has them; of a
            weight with groups, the one scale that a channel's groups have in common.

    Raises:
        UsageError: the operation accumulates nothing of the kind, or its weight's scale is missing.
    """
    match operation.accumulates:
        case Accumulates.CODES:
            return scales[0]
        case Accumulates.PRODUCTS:
            return scales[0] * scales[1] * operation.product_factor
        case Accumulates.WEIGHTED if weight is not None:
            return weight * scales[0]
    raise UsageError(
        f"one unit of what {operation.kind} accumulates does not follow from scales of its inputs"
        + (" alone: its weight has a scale too" if weight is None else "")
    )


def aligned_unit(output: np.ndarray, shift: int) -> np.ndarray:
    """Returns the real value of one unit of a sum whose inputs were brought to one scale.

    Args:
        output: scale of the result, [1] or [channels].
        shift: bits that the result is shifted right by.
    """
    return np.ldexp(output, -shift)


def normals_unit(gain: Number, terms: int, target: Target) -> Number:
    """Returns the real value of one unit of a norm's accumulator, for each channel.

    Args:
        gain: the scale of the gain's codes.
        terms: elements of a row.
        target: whose accumulator says how many bits a normalised number has.
    """
    return gain * normal_unit(terms, target)


def ratio_of(
    unit: float | np.ndarray, output: float | np.ndarray, divisors: float | np.ndarray = 1.0
) -> np.ndarray:
    """Returns how many codes of the output one unit of the accumulator is worth.

    Args:
        unit: real value of one unit of the accumulator.
        output: scale of the output.
        divisors: the counts by which sums become averages; 1 where nothing is divided.
    """
    return np.asarray(unit / (divisors * output))
