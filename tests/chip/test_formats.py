"""Number formats and exact intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from photomask.chip.formats import Interval, IntFormat

INTEGERS = st.integers(-(1 << 70), 1 << 70)
INTERVALS = st.tuples(INTEGERS, INTEGERS).map(lambda ends: Interval(min(ends), max(ends)))


@pytest.mark.parametrize(
    ("bits", "signed", "low", "high", "text"),
    [
        (8, True, -128, 127, "int8"),
        (8, False, 0, 255, "uint8"),
        (1, True, -1, 0, "int1"),
        (1, False, 0, 1, "uint1"),
        (64, True, -(1 << 63), (1 << 63) - 1, "int64"),
    ],
)
def test_limits_of_a_format(bits, signed, low, high, text):
    format = IntFormat(bits=bits, signed=signed)
    assert (format.low, format.high, str(format)) == (low, high, text)
    assert format.interval == Interval(low, high)


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 0, "signed": True},
        {"bits": 65, "signed": True},
        {"bits": 64, "signed": False},
        {"bits": 8.0, "signed": True},
        {"bits": "8", "signed": True},
        {"bits": 8, "signed": 1},
        {"bits": 8},
        {"bits": 8, "signed": True, "scale": 1},
    ],
)
def test_a_format_is_strict(fields):
    with pytest.raises(ValidationError):
        IntFormat(**fields)


@given(INTERVALS)
def test_bits_are_the_fewest_that_hold_an_interval(interval: Interval):
    def holds(bits: int) -> bool:
        low, high = (
            (-(1 << bits - 1), (1 << bits - 1) - 1) if interval.low < 0 else (0, 2**bits - 1)
        )
        return low <= interval.low and interval.high <= high

    assert holds(interval.bits)
    assert interval.bits == 1 or not holds(interval.bits - 1)


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 63), (1 << 62)))
def test_the_holding_format_holds(one: int, other: int):
    interval = Interval(min(one, other), max(one, other))
    format = IntFormat.holding(interval)
    assert interval.within(format.interval)
    assert format.signed == (interval.low < 0)


@given(INTERVALS, INTERVALS, INTEGERS, st.data())
def test_interval_arithmetic_contains_every_result(a: Interval, b: Interval, c: int, data):
    x = data.draw(st.integers(a.low, a.high))
    y = data.draw(st.integers(b.low, b.high))
    for interval, value in (
        (a + b, x + y),
        (a.product(b), x * y),
        (a.scaled(c), c * x),
        (a.shifted(c), x + c),
        (a.union(b), x),
        (a.union(b), y),
        (Interval.hull(a, c, b), c),
    ):
        assert Interval(value, value).within(interval)
    assert abs(x) <= a.magnitude
    assert a.within(a.union(b))
    assert Interval.hull(a, b) == a.union(b)
