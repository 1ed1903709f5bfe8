"""Defines the element formats of MX and the values of their bit patterns."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

BLOCK = 32
"""The number of elements that share a scale."""
SCALE_BIAS = 127
NAN_SCALE = 255
"""The E8M0 code of a scale that makes its whole block NaN.

Every other code `c` represents `2**(c - 127)`. There is neither zero nor infinity.
"""


@dataclass(frozen=True)
class ElementFormat:
    """A small floating-point format, or an integer format where `exponent_bits` is 0.

    With sign `s`, exponent field `e` and mantissa field `m`, a code represents

        (-1)**s * 2**(e - bias)     * (1 + m / 2**mantissa_bits)    e > 0
        (-1)**s * 2**(1 - bias)     * m / 2**mantissa_bits          e = 0
        code / 2**mantissa_bits                                     integers

    Integers are in two's complement.

    Attributes:
        name: the name in the specification.
        exponent_bits: the width of the exponent field; 0 for integers.
        mantissa_bits: the number of fraction bits.
        bias: the bias of the exponent field.
        largest_code: the code of the largest finite magnitude; codes above it are infinity or NaN.
        infinity_code: the code of infinity, or None.

    Source: OCP MX specification 1.0, section 5.3.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    largest_code: int
    infinity_code: int | None = None

    @property
    def is_integer(self) -> bool:
        """True for MXINT8."""
        return self.exponent_bits == 0

    @property
    def bits(self) -> int:
        """The width of an element in bits."""
        return 8 if self.is_integer else 1 + self.exponent_bits + self.mantissa_bits

    @property
    def largest_exponent(self) -> int:
        """The exponent of the largest power of two that the format holds."""
        return 0 if self.is_integer else (self.largest_code >> self.mantissa_bits) - self.bias

    @property
    def fraction_bits(self) -> int:
        """The fraction bits: every finite value is an integer multiple of `2**-fraction_bits`."""
        return self.mantissa_bits + (0 if self.is_integer else self.bias - 1)

    @property
    def significand_bits(self) -> int:
        """The width of a significand including the sign, which is a multiplier's operand."""
        return 8 if self.is_integer else self.mantissa_bits + 2

    @property
    def largest_shift(self) -> int:
        """The largest left shift that brings a significand to the unit `2**-fraction_bits`."""
        return 0 if self.is_integer else max(0, (self.largest_code >> self.mantissa_bits) - 1)

    @property
    def largest_integer(self) -> int:
        """The largest magnitude, in units of `2**-fraction_bits`."""
        if self.is_integer:
            return 128
        significands, shifts = self.significands
        return int(significands[self.largest_code]) << int(shifts[self.largest_code])

    @cached_property
    def significands(self) -> tuple[np.ndarray, np.ndarray]:
        """The signed significand and the shift of every code.

        `significand << shift` is the value in units of `2**-fraction_bits`. Infinity and NaN have
        the significand 0.
        """
        codes = np.arange(1 << self.bits)
        if self.is_integer:
            return np.where(codes < 128, codes, codes - 256), np.zeros_like(codes)
        sign, magnitude = codes >> (self.bits - 1), codes & ((1 << (self.bits - 1)) - 1)
        field = magnitude >> self.mantissa_bits
        fraction = magnitude & ((1 << self.mantissa_bits) - 1)
        significand = fraction + np.where(field > 0, 1 << self.mantissa_bits, 0)
        significand[magnitude > self.largest_code] = 0
        return np.where(sign == 1, -significand, significand), np.maximum(field - 1, 0)

    @cached_property
    def values(self) -> np.ndarray:
        """The exact value of every code, float64."""
        significands, shifts = self.significands
        values = np.ldexp(significands.astype(np.float64), shifts - self.fraction_bits)
        codes = np.arange(1 << self.bits)
        if not self.is_integer:
            half = 1 << (self.bits - 1)
            values[codes == half] = -0.0
            magnitude = codes & (half - 1)
            values[magnitude > self.largest_code] = np.nan
            if self.infinity_code is not None:
                infinite = magnitude == self.infinity_code
                values[infinite] = np.where(codes[infinite] < half, np.inf, -np.inf)
        return values

    def __str__(self) -> str:
        return self.name


MXFP8_E4M3 = ElementFormat("MXFP8 E4M3", 4, 3, 7, largest_code=0x7E)
"""It has no infinity; the magnitude code 0x7F is NaN; the largest value is 448."""
MXFP8_E5M2 = ElementFormat("MXFP8 E5M2", 5, 2, 15, largest_code=0x7B, infinity_code=0x7C)
"""The code 0x7C is infinity and codes above it are NaN; the largest value is 57344."""
MXFP6_E2M3 = ElementFormat("MXFP6 E2M3", 2, 3, 1, largest_code=0x1F)
"""All codes are finite; the largest value is 7.5."""
MXFP6_E3M2 = ElementFormat("MXFP6 E3M2", 3, 2, 3, largest_code=0x1F)
"""All codes are finite; the largest value is 28."""
MXFP4 = ElementFormat("MXFP4 E2M1", 2, 1, 1, largest_code=0x7)
"""All codes are finite; the largest value is 6."""
MXINT8 = ElementFormat("MXINT8", 0, 6, 0, largest_code=0x7F)
"""Two's complement in units of 1/64.

The code 0x80 (-2) is decoded but never produced, as the standard allows, so that the ranges of
positive and negative numbers are equal.
"""
MX_FORMATS = {
    "mxfp8_e4m3": MXFP8_E4M3,
    "mxfp8_e5m2": MXFP8_E5M2,
    "mxfp6_e2m3": MXFP6_E2M3,
    "mxfp6_e3m2": MXFP6_E3M2,
    "mxfp4": MXFP4,
    "mxint8": MXINT8,
}
"""The six element formats by name."""
