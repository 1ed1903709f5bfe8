"""Computes dot products of MX blocks exactly, with integers only.

The datapath for two blocks of 32 elements with the scale codes `c_a` and `c_b` is:

1. Each element is a signed significand and a shift; `significand << shift` is in units of the
   format.
2. Each of the 32 products of significands is shifted left by the sum of its two shifts. This aligns
   the products to one fixed unit, `2**-(fraction_bits_a + fraction_bits_b)`.
3. The products are added. `block_sum_bits` hold every partial sum in any order, so no bit is lost.
4. The scale codes are added, with a result of 9 bits. The unit of the block's sum is
   `2**(c_a + c_b - 254)` times the fixed unit.
5. The sums of all blocks are aligned and added. Each is shifted left by the difference of its sum
   of scale codes to the smallest one. `accumulator_bits(blocks, spread)` hold the result where
   these differences are at most `spread`; with the full spread of 508 they hold every result.

A design with a narrower accumulator drops low bits in step 5. It is then no longer exact, and its
error is that of its own rounding.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.microscaling.blocks import Blocks
from photomask.chip.microscaling.elements import BLOCK, NAN_SCALE, SCALE_BIAS, ElementFormat
from photomask.errors import DataError

LARGEST_SPREAD = 2 * (NAN_SCALE - 1)
"""The largest difference between sums of two scale codes, which go from 0 to 508."""


@dataclass(frozen=True)
class DotProductWidths:
    """The widths of all stages of the datapath, in bits including the sign.

    Attributes:
        first: the format of one factor.
        second: the format of the other factor.
    """

    first: ElementFormat
    second: ElementFormat

    @property
    def product_bits(self) -> int:
        """The width of a product of two significands."""
        largest = [1 << (each.significand_bits - 1) for each in (self.first, self.second)]
        if not self.first.is_integer:
            largest[0] -= 1
        if not self.second.is_integer:
            largest[1] -= 1
        bound = largest[0] * largest[1]
        return Interval(-bound, bound).bits

    @property
    def largest_shift(self) -> int:
        """The largest left shift of a product before the sum."""
        return self.first.largest_shift + self.second.largest_shift

    @property
    def fraction_bits(self) -> int:
        """The fraction bits of the sum, whose unit is `2**-fraction_bits` times both scales."""
        return self.first.fraction_bits + self.second.fraction_bits

    @property
    def block_sum(self) -> Interval:
        """The interval of the sum of one block and of all its partial sums."""
        bound = BLOCK * self.first.largest_integer * self.second.largest_integer
        return Interval(-bound, bound)

    @property
    def block_sum_bits(self) -> int:
        """The width of the sum of one block."""
        return self.block_sum.bits

    def accumulator_bits(self, blocks: int, spread: int = LARGEST_SPREAD) -> int:
        """Returns the width of an exact sum over blocks.

        Args:
            blocks: the number of blocks.
            spread: the largest difference between sums of scale codes, 0 to 508.

        Raises:
            DataError: `blocks` is below 1, or `spread` is out of range.
        """
        if blocks < 1 or not 0 <= spread <= LARGEST_SPREAD:
            raise DataError(
                f"blocks must be at least 1 and spread 0 to {LARGEST_SPREAD}, found {blocks} and "
                f"{spread}"
            )
        return self.block_sum.scaled(blocks << spread).bits

    def __str__(self) -> str:
        return (
            f"{self.first} times {self.second}: products of {self.product_bits} bits, shifted by "
            f"up to {self.largest_shift}, block sums of {self.block_sum_bits} bits"
        )


@dataclass(frozen=True)
class DotProduct:
    """Exact dot products, `integers * 2**exponents`.

    Attributes:
        integers: Python integers in an object array `[...]`.
        exponents: the exponents, int64 `[...]`.
        block_sums: the sum of each block before the alignment, `[..., blocks]`.
    """

    integers: np.ndarray
    exponents: np.ndarray
    block_sums: np.ndarray

    def fractions(self) -> np.ndarray:
        """Returns the values as an object array of `Fraction`."""
        return np.vectorize(_fraction, otypes=[object])(self.integers, self.exponents)


def dot(first: Blocks, second: Blocks) -> DotProduct:
    """Returns dot products along the last axis, computed by the integer datapath.

    Leading axes broadcast.

    Args:
        first: one factor, `[..., blocks]`.
        second: the other factor, with the same length along the last axis.

    Raises:
        DataError: the lengths differ, or a block holds NaN or infinity, which hardware would carry
            as a flag.
    """
    if first.length != second.length:
        raise DataError(
            "a dot product needs factors of equal length along the last axis, found "
            f"{first.length} and {second.length}"
        )
    for blocks in (first, second):
        if (blocks.scales == NAN_SCALE).any() or not np.isfinite(
            blocks.format.values[blocks.codes]
        ).all():
            raise DataError(
                "a block holds NaN or infinity, which have no integer value; remove them from the "
                "data"
            )
    (a, shift_a), (b, shift_b) = (
        tuple(table[blocks.codes] for table in blocks.format.significands)
        for blocks in (first, second)
    )
    products = (a * b).astype(object) << (shift_a + shift_b).astype(object)
    sums = products.sum(axis=-1)
    scales = first.scales.astype(np.int64) + second.scales.astype(np.int64)
    smallest = scales.min(axis=-1)
    aligned = sums << (scales - smallest[..., None]).astype(object)
    widths = DotProductWidths(first.format, second.format)
    exponents = smallest - 2 * SCALE_BIAS - widths.fraction_bits
    return DotProduct(np.asarray(aligned.sum(axis=-1), dtype=object), exponents, sums)


def _fraction(integer: int, exponent: int) -> Fraction:
    return Fraction(integer) * Fraction(2) ** int(exponent)
