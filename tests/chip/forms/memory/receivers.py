"""Receivers that rescale rightly and wrongly, in exact fractions and without code of ours."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from tests.chip.programs import ProgramBuilder

from photomask.chip.formats import IntFormat
from photomask.chip.forms.conformance.documents import (
    ConformanceVectors,
    RescalingFormat,
)
from photomask.chip.forms.conformance.examination import Computed
from photomask.chip.operators import Requantize
from photomask.chip.program import IntegerProgram
from photomask.chip.target import Target

HALF = Fraction(1, 2)


def half_up(v: Fraction) -> int:
    return math.floor(v + HALF)


def half_down(v: Fraction) -> int:
    return math.ceil(v - HALF)


def half_even(v: Fraction) -> int:
    return round(v)


def half_away(v: Fraction) -> int:
    return half_up(v) if v >= 0 else half_down(v)


def half_to_zero(v: Fraction) -> int:
    return half_down(v) if v >= 0 else half_up(v)


def toward_zero(v: Fraction) -> int:
    return math.trunc(v)


ROUNDINGS: dict[str, Callable[[Fraction], int]] = {
    "half_up": half_up,
    "half_even": half_even,
    "half_away": half_away,
    "truncate": math.floor,
}
"""Those of a target but `double`, by the target's names."""


def double(product: int, shift: int) -> int:
    """TOSA's double rounding: 2**30 is added before all, away from zero, if bit 31 is dropped."""
    nudge = 0 if shift <= 31 else 1 << 30 if product >= 0 else -(1 << 30)
    return half_up(Fraction(product + nudge, 1 << shift)) if shift else product


@dataclass(frozen=True)
class Receiver:
    """A unit that rescales; what is not said is done rightly."""

    words: str = ""
    """What the diagnosis should say of it."""
    rounding: Callable[[Fraction], int] | None = None
    double: bool | None = None
    more_shift: int = 0
    saturates_low: bool = True
    saturates_high: bool = True
    zero_point_first: bool = False
    without_zero_point: bool = False
    product_bits: int = 64

    def result(self, format: RescalingFormat, x: int, multiplier: int, shift: int) -> int:
        """Returns what it stores for one accumulator, cut to the bits of the output."""
        product = wrapped((x + format.offset) * multiplier, self.product_bits)
        zero_point = 0 if self.without_zero_point else format.zero_point
        shift = shift + self.more_shift
        if shift < 0:
            product, shift = 2 * product, 0
        if self.zero_point_first:
            product, zero_point = product + (zero_point << shift), 0
        twice = format.rounding == "double" if self.double is None else self.double
        if self.rounding is None and twice:
            value = double(product, shift)
        else:
            rounded = self.rounding or ROUNDINGS[format.rounding]
            value = rounded(Fraction(product, 1 << shift))
        value += zero_point
        if self.saturates_low:
            value = max(value, format.low)
        if self.saturates_high:
            value = min(value, format.high)
        value = wrapped(value, format.output.bits)
        return value if format.output.signed else value % (1 << format.output.bits)

    def run(self, vectors: ConformanceVectors) -> dict[str, Computed]:
        """Computes every vector."""
        found = {}
        for step in vectors.steps:
            format = vectors.format(step.format)
            values = [
                [self.result(format, x, multiplier, shift) for x in row]
                for row, multiplier, shift in zip(
                    step.accumulator, step.multiplier, step.shift, strict=True
                )
            ]
            found[step.step] = Computed(np.array(values), np.ones(np.shape(values), bool))
        return found


def wrapped(value: int, bits: int) -> int:
    """Returns the low bits as a number in two's complement."""
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


RIGHT = Receiver()
WRONG = (
    Receiver("rounds halves up", rounding=half_up),
    Receiver("rounds halves down", rounding=half_down),
    Receiver("rounds halves to even", rounding=half_even),
    Receiver("rounds halves away from zero", rounding=half_away),
    Receiver("rounds halves toward zero", rounding=half_to_zero),
    Receiver("rounds toward zero", rounding=toward_zero),
    Receiver("drops the low bits (rounds down)", rounding=math.floor),
    Receiver("rounds up", rounding=math.ceil),
    Receiver("rounds twice, as TOSA does", double=True),
    Receiver("shifts by one bit too many", more_shift=1),
    Receiver("shifts by one bit too few", more_shift=-1),
    Receiver("does not saturate at the low end", saturates_low=False),
    Receiver("does not saturate at the high end", saturates_high=False),
    Receiver("does not saturate at either end", saturates_low=False, saturates_high=False),
    Receiver("adds the zero point before it rounds", zero_point_first=True),
    Receiver("leaves out the zero point", without_zero_point=True),
    Receiver("keeps only 32 bits of the product", product_bits=32),
)


def rescaling_program(
    target: Target,
    *,
    accumulator: IntFormat,
    output: IntFormat,
    zero_point: int = 0,
    offset: int = 0,
    low: int | None = None,
    high: int | None = None,
    channels: int = 1,
) -> IntegerProgram:
    """A program with one requantization, whose own numbers are dull: no tie ever occurs."""
    make = ProgramBuilder(target)
    x = make.input("x", (1, 3, 4), bits=accumulator.bits, signed=accumulator.signed)
    operator = Requantize(
        rounding=target.rounding,
        offset=offset,
        zero_point=zero_point,
        low=output.low if low is None else low,
        high=output.high if high is None else high,
    )
    multiplier = 1 if target.power_of_two_only else (1 << target.multiplier_bits) - 1
    tensors = {
        "multiplier": np.full((channels, 1) if channels > 1 else 1, multiplier),
        "shift": np.full((channels, 1) if channels > 1 else 1, target.shift_max),
    }
    formats = {
        "multiplier": IntFormat(bits=multiplier.bit_length(), signed=False),
        "shift": IntFormat(bits=6, signed=False),
    }
    return make.build(make.step("rescale", operator, [x], tensors, formats, format=output))
