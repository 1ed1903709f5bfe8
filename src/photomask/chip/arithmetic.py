"""The only definition of rounding and of requantization parameters.

`round_shift` works on Python integers of any size and defines the results that every engine is
tested against. `fixed_point` converts real ratios to multipliers and shifts of the target.
"""

from dataclasses import dataclass

import numpy as np
import torch

from photomask.chip.formats import Interval
from photomask.chip.target import Rounding, Target
from photomask.errors import TargetError

FLOAT32_EXACT = 1 << 24
FLOAT64_EXACT = 1 << 53
SMALLEST_PART = 2.0**-36
"""A small part of a quantization step that pushes halves to the right side.

It is smaller than the distance of other fractions from a half, and larger than float64 errors.
"""


def round_shift(value: int, shift: int, rounding: Rounding) -> int:
    """Returns `value / 2**shift` as an integer, which defines each rounding mode.

    Args:
        value: the product of accumulator and multiplier.
        shift: the bits to drop, at least 0.
        rounding: see `Rounding`.

    Source: TOSA 1.0 specification, section "Rescale", for `DOUBLE`.
    """
    if shift == 0:
        return value
    half = 1 << (shift - 1)
    if rounding is Rounding.TRUNCATE:
        return value >> shift
    if rounding is Rounding.HALF_UP:
        return (value + half) >> shift
    if rounding is Rounding.DOUBLE:
        first = 0 if shift <= 31 else (1 << 30 if value >= 0 else -(1 << 30))
        return (value + half + first) >> shift
    if rounding is Rounding.HALF_AWAY:
        return (value + half) >> shift if value >= 0 else -((-value + half) >> shift)
    quotient, remainder = value >> shift, value & ((1 << shift) - 1)
    return quotient + (remainder > half or (remainder == half and quotient & 1 == 1))


def direction_of_halves(value: torch.Tensor, rounding: Rounding) -> torch.Tensor | float:
    """Returns the part of a step to add in float64 so that halves round as the target rounds them.

    Rounding to even and truncation need no such part. TOSA's double rounding cannot be expressed by
    one.
    """
    if rounding is Rounding.HALF_UP:
        return SMALLEST_PART
    return SMALLEST_PART * value.sign() if rounding is Rounding.HALF_AWAY else 0.0


@dataclass(frozen=True)
class FixedPoint:
    """Real ratios as integers: `ratio ≈ multiplier / 2**shift`, element by element."""

    multiplier: np.ndarray
    """int64, not negative, at most `target.multiplier_bits` wide."""
    shift: np.ndarray
    """int64, the right shifts in bits, in the shape of `multiplier`."""
    relative_error: float
    """The largest `|multiplier / 2**shift / ratio - 1|`."""

    @property
    def ratio(self) -> np.ndarray:
        """`multiplier / 2**shift`, as exact float64."""
        return np.ldexp(self.multiplier.astype(np.float64), -self.shift)


def fixed_point(ratio: np.ndarray, target: Target, where: str) -> FixedPoint:
    """Returns the multiplier and shift of each ratio with the least error that the target allows.

    `ratio = f * 2**e` with `1/2 <= f < 1` gives `multiplier = round(f * 2**bits)` and `shift = bits
    - e`, so that the relative error is at most `2**-bits`.

    Args:
        ratio: float64, positive.
        target: multiplier width, shift range, shift granularity, power-of-two mode.
        where: the name of the operator, for error messages.

    Raises:
        TargetError: a ratio is not positive and finite, is not a power of two although the target
            supports only those, or is too large for the target's multiplier and smallest shift.

    Source: Jacob et al. 2018, section 2.2, arXiv:1712.05877.
    """
    ratio = np.asarray(ratio, dtype=np.float64)
    if not np.all(np.isfinite(ratio)) or np.any(ratio <= 0):
        raise TargetError(
            f"{where}: a rescaling ratio is {ratio.min()}, expected a positive and finite number"
        )
    if target.power_of_two_only:
        multiplier, shift = _power_of_two(ratio, where, target)
    else:
        _, exponent = np.frexp(ratio)
        shift = np.minimum(target.multiplier_bits - exponent.astype(np.int64), target.shift_max)
        if not target.per_channel_shift:
            shift = np.full_like(shift, shift.min())
        multiplier = np.rint(np.ldexp(ratio, shift)).astype(np.int64)
        carried = multiplier >= 1 << target.multiplier_bits
        if not target.per_channel_shift and carried.any():
            carried = np.ones_like(carried)
        shift = np.where(carried, shift - 1, shift)
        multiplier = np.where(carried, np.rint(np.ldexp(ratio, shift)), multiplier).astype(np.int64)
    if shift.min() < target.shift_min:
        raise TargetError(
            f"{where}: rescaling by {ratio.max():.4g} needs a right shift of {shift.min()}, below "
            f"the target's shift_min {target.shift_min} with {target.multiplier_bits}-bit "
            "multipliers; the output's scale is too small for its input"
        )
    error = np.abs(np.ldexp(multiplier.astype(np.float64), -shift) / ratio - 1).max()
    return FixedPoint(multiplier, shift, float(error))


def _power_of_two(ratio: np.ndarray, where: str, target: Target) -> tuple[np.ndarray, np.ndarray]:
    mantissa, exponent = np.frexp(ratio)
    if np.any(mantissa != 0.5):
        offender = ratio.reshape(-1)[np.argmax(mantissa.reshape(-1) != 0.5)]
        raise TargetError(
            f"{where}: target {target.name!r} rescales only by shifts, but the model needs a ratio "
            f"of {offender:.6g}, which is not a power of two; use power-of-two scales (recipe "
            "'w8a8-po2') and pooling windows with a power-of-two number of elements"
        )
    shift = 1 - exponent.astype(np.int64)
    if shift.max() > target.shift_max:
        raise TargetError(
            f"{where}: the rescaling needs a right shift of {shift.max()}, above "
            f"{target.shift_max}, which is the target's shift_max"
        )
    if not target.per_channel_shift and shift.min() != shift.max():
        multiplier = np.int64(1) << (shift.max() - shift)
        raise TargetError(
            f"{where}: target {target.name!r} has one shift for all channels, but the channels "
            f"need shifts from {shift.min()} to {shift.max()} ({multiplier.max()} times apart); "
            "use per-tensor weight scales"
        )
    return np.ones_like(shift), shift


def carrier(interval: Interval) -> torch.dtype:
    """Returns the fastest dtype that holds every integer of `interval` exactly."""
    if interval.magnitude <= FLOAT32_EXACT:
        return torch.float32
    return torch.float64 if interval.magnitude <= FLOAT64_EXACT else torch.int64
