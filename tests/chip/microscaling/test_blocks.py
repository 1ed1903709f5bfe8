"""Encoding against nearest fractions and other libraries; fake quantization is the same numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.microscaling import (
    MX_FORMATS,
    MXFP4,
    MXFP8_E4M3,
    MXFP8_E5M2,
    MXINT8,
    Blocks,
    ElementFormat,
    decode,
    encode,
    round_to_blocks,
)
from photomask.errors import DataError

FORMATS = st.sampled_from(list(MX_FORMATS.values()))
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
SMALL = st.integers(-1024, 1024).map(lambda n: n / 64)
ROWS = st.lists(st.one_of(FINITE, SMALL), min_size=1, max_size=70)


def nearest_code(value: Fraction, format: ElementFormat) -> int:
    """Returns the code of the nearest finite magnitude, ties to the even code, by looking at all.

    Infinitely far values are nearest to the largest: saturation.
    """
    last = 127 if format.is_integer else format.largest_code
    codes = range(last + 1)
    distance = [abs(Fraction(float(format.values[code])) - abs(value)) for code in codes]
    return min(codes, key=lambda code: (distance[code], code % 2))


@settings(max_examples=120, deadline=None)
@given(row=ROWS, format=FORMATS)
def test_codes_are_the_nearest_and_ties_go_to_the_even(row: list[float], format: ElementFormat):
    found = encode(np.array(row, dtype=np.float32), format)
    for at in range(0, len(row), 32):
        part = [Fraction(value) for value in row[at : at + 32]]
        largest = max(map(abs, part))
        exponent = -127
        if largest:
            floor = math.floor(math.log2(largest))
            floor += (Fraction(2) ** (floor + 1) <= largest) - (Fraction(2) ** floor > largest)
            exponent = max(-127, floor - format.largest_exponent)
        assert found.scales[at // 32] == exponent + 127
        for position, value in enumerate(part):
            code = nearest_code(value / Fraction(2) ** exponent, format)
            expected = float(format.values[code]) * (-1 if value < 0 else 1)
            assert format.values[found.codes[at // 32, position]] == expected
        assert not found.codes[at // 32, len(part) :].any()


@settings(max_examples=120, deadline=None)
@given(row=ROWS, format=FORMATS)
def test_fake_quantization_is_what_the_codes_stand_for(row: list[float], format: ElementFormat):
    x = np.array([row, row[::-1]], dtype=np.float32)
    expected = decode(encode(x, format))
    assert np.array_equal(round_to_blocks(torch.from_numpy(x), format, -1).numpy(), expected)
    found = round_to_blocks(torch.from_numpy(x.T.copy()), format, 0)
    assert np.array_equal(found.numpy(), expected.T)


@settings(max_examples=60, deadline=None)
@given(row=ROWS, format=FORMATS)
def test_values_stay_once_the_largest_is_on_the_grid(row: list[float], format: ElementFormat):
    """Rounding the largest may raise the scale once, and never again."""
    once = decode(encode(np.array(row), format))
    again = decode(encode(once, format))
    assert np.abs(again).max() == np.abs(once).max()
    assert np.array_equal(decode(encode(again, format)), again)


def test_a_vector_worked_out_by_hand():
    """The largest is 5: floor(log2 5) = 2 = the largest exponent of E2M1, so the scale is 1."""
    x = np.array([5.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, -5.0, -0.2, 7e-9])
    found = encode(x, MXFP4)
    assert found.scales.tolist() == [127]
    expected = [4.0, 0.0, 1.0, 1.0, 2.0, 2.0, 4.0, -4.0, -0.0, 0.0]
    assert decode(found).tolist() == expected
    assert found.codes[0, :10].tolist() == [6, 0, 2, 2, 4, 4, 6, 0xE, 8, 0]
    # 7.9 is above the largest, 6: the scale stays a power of two below, and it saturates.
    assert decode(encode(np.array([7.9]), MXFP4)).tolist() == [6.0]
    assert decode(encode(np.array([-1.999]), MXINT8)).tolist() == [-127 / 64]


def test_scales_are_clamped_and_zeros_have_the_smallest():
    assert encode(np.zeros(40), MXFP8_E4M3).scales.tolist() == [0, 0]
    assert not decode(encode(np.zeros(40), MXFP8_E4M3)).any()
    assert encode(np.array([1e-300]), MXINT8).scales.tolist() == [0]
    huge = encode(np.array([1e300, -1e300]), MXINT8)
    assert huge.scales.tolist() == [254]
    assert decode(huge).tolist() == [127 / 64 * 2.0**127, -127 / 64 * 2.0**127]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_block_with_a_broken_number_is_nan_and_others_are_not(broken: float):
    x = np.ones(70, dtype=np.float32)
    x[40] = broken
    for format in MX_FORMATS.values():
        found = encode(x, format)
        assert found.scales[1] == 255
        expected = np.where((np.arange(70) >= 32) & (np.arange(70) < 64), np.nan, 1.0)
        assert np.array_equal(decode(found), expected, equal_nan=True)
        rounded = round_to_blocks(torch.from_numpy(x), format, 0).numpy()
        assert np.array_equal(rounded, expected, equal_nan=True)


def test_special_elements_are_decoded():
    codes = np.zeros((1, 32), dtype=np.uint8)
    codes[0, :3] = 0x7C, 0xFC, 0x7F
    found = decode(Blocks(MXFP8_E5M2, np.array([130], dtype=np.uint8), codes, 4))
    assert np.array_equal(found, [np.inf, -np.inf, np.nan, 0.0], equal_nan=True)


@pytest.mark.parametrize(
    ("name", "dtype"), [("mxfp8_e4m3", torch.float8_e4m3fn), ("mxfp8_e5m2", torch.float8_e5m2)]
)
def test_rounding_is_that_of_torch(name: str, dtype: torch.dtype):
    """Inside the range, with a scale of 1."""
    format = MX_FORMATS[name]
    top = 2.0**format.largest_exponent
    x = torch.randn(64, 31) * torch.exp2(torch.randint(-20, 8, (64, 31)))
    x = torch.cat([torch.full((64, 1), top), x.clamp(-top, top)], dim=1)
    assert np.array_equal(decode(encode(x.numpy(), format)), x.to(dtype).double().numpy())


def test_rounding_is_that_of_ml_dtypes():
    other = pytest.importorskip("ml_dtypes")
    names = {"mxfp6_e2m3": "float6_e2m3fn", "mxfp6_e3m2": "float6_e3m2fn", "mxfp4": "float4_e2m1fn"}
    random = np.random.default_rng(0)
    for name, dtype in names.items():
        format = MX_FORMATS[name]
        top = 2.0**format.largest_exponent
        x = (random.normal(size=(64, 32)) * top / 3).clip(-top, top).astype(np.float32)
        x[:, 0] = top
        expected = x.astype(getattr(other, dtype)).astype(np.float64)
        assert np.array_equal(decode(encode(x, format)), expected)


def test_what_is_no_tensor_of_numbers_is_refused():
    for bad in (np.arange(4), np.zeros(0), np.float32(1.0)):
        with pytest.raises(DataError, match="float32 or float64"):
            encode(bad, MXFP4)
    with pytest.raises(DataError, match="axis 2"):
        round_to_blocks(torch.zeros(2, 2), MXFP4, 2)
