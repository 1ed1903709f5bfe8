"""The integer datapath gives the exact rational value, within the widths that are stated."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.microscaling import (
    MX_FORMATS,
    MXFP4,
    MXFP8_E4M3,
    MXFP8_E5M2,
    MXINT8,
    Blocks,
    DotProductWidths,
    ElementFormat,
    decode,
    dot,
    encode,
)
from photomask.errors import DataError

FORMATS = st.sampled_from(list(MX_FORMATS.values()))


def finite_blocks(format: ElementFormat, count: int, seed: int, spread: int) -> Blocks:
    """Any finite codes, extremes often."""
    random = np.random.default_rng(seed)
    finite = np.flatnonzero(np.isfinite(format.values))
    extreme = finite[np.argsort(np.abs(format.values[finite]))[-2:]]
    codes = np.where(
        random.random((2, count, 32)) < 0.5,
        random.choice(finite, (2, count, 32)),
        random.choice(extreme, (2, count, 32)),
    )
    low = int(random.integers(0, 255 - spread))
    scales = random.integers(low, low + spread + 1, (2, count))
    return Blocks(format, scales.astype(np.uint8), codes.astype(np.uint8), 32 * count)


@settings(max_examples=60, deadline=None)
@given(
    first=FORMATS,
    second=FORMATS,
    count=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0, 3, 20, 254]),
)
def test_dot_products_are_exact_and_fit_the_stated_widths(
    first: ElementFormat, second: ElementFormat, count: int, seed: int, spread: int
):
    a, b = finite_blocks(first, count, seed, spread), finite_blocks(second, count, seed + 1, spread)
    found = dot(a, b)
    values = [[[Fraction(v) for v in row] for row in decode(each)] for each in (a, b)]
    expected = [
        sum(x * y for x, y in zip(*rows, strict=True)) for rows in zip(*values, strict=True)
    ]
    assert found.fractions().tolist() == expected
    widths = DotProductWidths(first, second)
    for value in found.block_sums.flatten():
        assert widths.block_sum.low <= value <= widths.block_sum.high
    limit = 1 << (widths.accumulator_bits(count, 2 * spread) - 1)
    assert all(-limit <= value < limit for value in found.integers)


@pytest.mark.parametrize("format", MX_FORMATS.values(), ids=str)
def test_the_widths_are_as_narrow_as_they_can_be(format: ElementFormat):
    """A block of extremes needs every bit."""
    largest = int(np.nanargmax(np.where(np.isfinite(format.values), np.abs(format.values), -1)))
    codes = np.full((1, 1, 32), largest, dtype=np.uint8)
    extremes = Blocks(format, np.full((1, 1), 127, dtype=np.uint8), codes, 32)
    widths = DotProductWidths(format, format)
    total = int(dot(extremes, extremes).block_sums[0, 0])
    assert total == widths.block_sum.high
    assert total.bit_length() + 1 == widths.block_sum_bits == widths.accumulator_bits(1, 0)
    product = int(format.significands[0][largest]) ** 2
    assert product.bit_length() <= widths.product_bits - 1


def test_the_widths_that_the_page_states():
    stated = {"mxint8": 21, "mxfp8_e4m3": 42, "mxfp8_e5m2": 70, "mxfp6_e2m3": 18}
    stated |= {"mxfp6_e3m2": 24, "mxfp4": 14}
    for name, bits in stated.items():
        widths = DotProductWidths(MX_FORMATS[name], MX_FORMATS[name])
        assert widths.block_sum_bits == bits, widths


def test_matrices_broadcast():
    random = np.random.default_rng(0)
    x, w = random.normal(size=(3, 50)), random.normal(size=(4, 50))
    a, b = encode(x, MXFP8_E4M3), encode(w, MXFP4)
    a = Blocks(a.format, a.scales[:, None], a.codes[:, None], a.length)
    b = Blocks(b.format, b.scales[None], b.codes[None], b.length)
    found = dot(a, b)
    assert found.integers.shape == (3, 4)
    expected = decode(encode(x, MXFP8_E4M3)) @ decode(encode(w, MXFP4)).T
    assert np.allclose(found.fractions().astype(float), expected, rtol=1e-12, atol=1e-12)


def test_what_has_no_integer_value_is_refused():
    good = encode(np.ones(32), MXFP8_E5M2)
    with pytest.raises(DataError, match="factors of equal length"):
        dot(good, encode(np.ones(33), MXINT8))
    with pytest.raises(DataError, match="NaN or infinity"):
        dot(good, encode(np.full(32, np.nan), MXFP8_E5M2))
    infinite = Blocks(MXFP8_E5M2, good.scales, np.full((1, 32), 0x7C, dtype=np.uint8), 32)
    with pytest.raises(DataError, match="NaN or infinity"):
        dot(good, infinite)
    for arguments in ((0, 1), (1, 509), (1, -1)):
        with pytest.raises(DataError, match="blocks must be at least 1"):
            DotProductWidths(MXFP4, MXFP4).accumulator_bits(*arguments)
