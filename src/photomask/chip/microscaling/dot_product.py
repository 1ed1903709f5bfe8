"""Dot products of MX blocks with integers alone, exactly.

The datapath, for two blocks of 32 elements with scale codes `c_a` and `c_b`:

1. Each element is a signed significand and a shift: `significand << shift` in units of the format.
2. 32 products of significands, each shifted left by the sum of its two shifts: alignment to one
   fixed unit, `2**-(fraction_bits_a + fraction_bits_b)`.
3. Their sum. No bit is lost: `block_sum_bits` hold every sum, whatever its order.
4. The scale codes are added, 9 bits: the block's sum counts in units of `2**(c_a + c_b - 254)`
   times that fixed unit.
5. Across blocks, a sum is shifted left by how far its scale code sum lies above the smallest one,
   and added. `accumulator_bits(blocks, spread)` hold the result where these lie at most `spread`
   apart; with the full spread of 508, any result at all.

A design with a narrower accumulator drops low bits in step 5; then it is no longer exact, and its
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
"""Between the sums of two scale codes, 0 and 508."""


@dataclass(frozen=True)
class DotProductWidths:
    """How wide every stage of the datapath is, in bits, signs included.

    Attributes:
        first: format of one factor.
        second: format of the other.
    """

    first: ElementFormat
    second: ElementFormat

    @property
    def product_bits(self) -> int:
        """Of a product of two significands."""
        largest = [1 << (each.significand_bits - 1) for each in (self.first, self.second)]
        if not self.first.is_integer:
            largest[0] -= 1
        if not self.second.is_integer:
            largest[1] -= 1
        bound = largest[0] * largest[1]
        return Interval(-bound, bound).bits

    @property
    def largest_shift(self) -> int:
        """Of a product on its way to the sum."""
        return self.first.largest_shift + self.second.largest_shift

    @property
    def fraction_bits(self) -> int:
        """The sum's unit is `2**-fraction_bits`, times both scales."""
        return self.first.fraction_bits + self.second.fraction_bits

    @property
    def block_sum(self) -> Interval:
        """All values that the sum of one block can have, and every partial sum of it."""
        bound = BLOCK * self.first.largest_integer * self.second.largest_integer
        return Interval(-bound, bound)

    @property
    def block_sum_bits(self) -> int:
        """Of the sum of one block."""
        return self.block_sum.bits

    def accumulator_bits(self, blocks: int, spread: int = LARGEST_SPREAD) -> int:
        """Returns the width of an exact sum over blocks.

        Args:
            blocks: how many.
            spread: between the smallest and the largest sum of scale codes, 0 to 508.

        Raises:
            DataError: no blocks, or a spread that cannot be.
        """
        if blocks < 1 or not 0 <= spread <= LARGEST_SPREAD:
            raise DataError(
                f"needed at least 1 block and a spread of 0 to {LARGEST_SPREAD}; found {blocks} "
                f"and {spread}"
            )
        return self.block_sum.scaled(blocks << spread).bits

    def __str__(self) -> str:
        return (
            f"{self.first} times {self.second}: products of {self.product_bits} bits, shifted by "
            f"up to {self.largest_shift}, block sums of {self.block_sum_bits} bits"
        )


@dataclass(frozen=True)
class DotProduct:
    """Exact results: `integers * 2**exponents`.

    Attributes:
        integers: Python integers in an object array `[...]`.
        exponents: int64 `[...]`.
        block_sums: what each block contributed, before alignment, `[..., blocks]`.
    """

    integers: np.ndarray
    exponents: np.ndarray
    block_sums: np.ndarray

    def fractions(self) -> np.ndarray:
        """Returns the values as `Fraction`, an object array."""
        return np.vectorize(_fraction, otypes=[object])(self.integers, self.exponents)


def dot(first: Blocks, second: Blocks) -> DotProduct:
    """Computes dot products along the last axis by the integer datapath; leading axes broadcast.

    Args:
        first: blocks `[..., blocks]`.
        second: the same length along the last axis.

    Raises:
        DataError: lengths differ; NaN or infinity, which hardware carries as a flag.
    """
    if first.length != second.length:
        raise DataError(
            f"dot products need equal lengths, found {first.length} and {second.length}"
        )
    for blocks in (first, second):
        if (blocks.scales == NAN_SCALE).any() or not np.isfinite(
            blocks.format.values[blocks.codes]
        ).all():
            raise DataError("a block holds NaN or infinity: it has no integer value")
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
