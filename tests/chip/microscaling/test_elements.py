"""Bit patterns against the definitions in fractions, and against other libraries."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from photomask.chip.microscaling import (
    MX_FORMATS,
    MXFP4,
    MXFP6_E2M3,
    MXFP6_E3M2,
    MXFP8_E4M3,
    MXFP8_E5M2,
    MXINT8,
    ElementFormat,
)

FLOATING = [f for f in MX_FORMATS.values() if not f.is_integer]
OTHERS = {
    MXFP8_E4M3: "float8_e4m3fn",
    MXFP8_E5M2: "float8_e5m2",
    MXFP6_E2M3: "float6_e2m3fn",
    MXFP6_E3M2: "float6_e3m2fn",
    MXFP4: "float4_e2m1fn",
}


def by_definition(format: ElementFormat, code: int) -> Fraction:
    """Returns what a finite code stands for, by the formula of section 5.3."""
    m, e = format.mantissa_bits, format.exponent_bits
    sign = code >> (m + e)
    field = code >> m & ((1 << e) - 1)
    fraction = code & ((1 << m) - 1)
    if field == 0:
        value = Fraction(2) ** (1 - format.bias) * Fraction(fraction, 2**m)
    else:
        value = Fraction(2) ** (field - format.bias) * (1 + Fraction(fraction, 2**m))
    return -value if sign else value


@pytest.mark.parametrize("format", FLOATING, ids=str)
def test_every_finite_code_stands_for_what_the_definition_says(format: ElementFormat):
    half = 1 << (format.bits - 1)
    significands, shifts = format.significands
    for code in range(1 << format.bits):
        if code & (half - 1) > format.largest_code:
            assert not np.isfinite(format.values[code])
            continue
        expected = by_definition(format, code)
        assert Fraction(format.values[code]) == expected
        integer = int(significands[code]) << int(shifts[code])
        assert Fraction(integer, 2**format.fraction_bits) == expected
        assert abs(integer) <= format.largest_integer
        assert abs(int(significands[code])) < 1 << (format.significand_bits - 1)
        assert int(shifts[code]) <= format.largest_shift


def test_integers_are_sixty_fourths():
    codes = np.arange(256).astype(np.uint8)
    assert np.array_equal(MXINT8.values, codes.astype(np.int8) / 64)
    assert (MXINT8.values.min(), MXINT8.values.max()) == (-2.0, 127 / 64)


@pytest.mark.parametrize(
    ("format", "largest", "smallest_normal", "smallest"),
    [
        (MXFP8_E4M3, 448.0, 2.0**-6, 2.0**-9),
        (MXFP8_E5M2, 57344.0, 2.0**-14, 2.0**-16),
        (MXFP6_E2M3, 7.5, 1.0, 0.125),
        (MXFP6_E3M2, 28.0, 0.25, 0.0625),
        (MXFP4, 6.0, 1.0, 0.5),
    ],
    ids=str,
)
def test_the_limits_are_those_of_the_tables(
    format: ElementFormat, largest: float, smallest_normal: float, smallest: float
):
    assert format.values[format.largest_code] == largest
    assert format.values[1 << format.mantissa_bits] == smallest_normal
    assert format.values[1] == smallest
    assert 2.0**format.largest_exponent <= largest < 2.0 ** (format.largest_exponent + 1)


def test_special_codes_are_where_the_tables_have_them():
    nan = np.flatnonzero(np.isnan(MXFP8_E4M3.values))
    assert nan.tolist() == [0x7F, 0xFF]
    assert not np.isinf(MXFP8_E4M3.values).any()
    infinite = np.flatnonzero(np.isinf(MXFP8_E5M2.values))
    assert infinite.tolist() == [0x7C, 0xFC]
    assert MXFP8_E5M2.values[0xFC] == -np.inf
    nan = np.flatnonzero(np.isnan(MXFP8_E5M2.values))
    assert nan.tolist() == [0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]
    for format in (MXFP6_E2M3, MXFP6_E3M2, MXFP4, MXINT8):
        assert np.isfinite(format.values).all()


@pytest.mark.parametrize(
    ("format", "dtype"),
    [(MXFP8_E4M3, torch.float8_e4m3fn), (MXFP8_E5M2, torch.float8_e5m2)],
    ids=str,
)
def test_eight_bit_floats_are_those_of_torch(format: ElementFormat, dtype: torch.dtype):
    codes = torch.arange(256, dtype=torch.int64).to(torch.uint8)
    expected = codes.view(dtype).float().numpy()
    assert np.array_equal(format.values, expected, equal_nan=True)


@pytest.mark.parametrize("format", FLOATING, ids=str)
def test_elements_are_those_of_ml_dtypes(format: ElementFormat):
    other = pytest.importorskip("ml_dtypes")
    codes = np.arange(1 << format.bits).astype(np.uint8)
    expected = codes.view(getattr(other, OTHERS[format])).astype(np.float64)
    assert np.array_equal(format.values, expected, equal_nan=True)
