import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from photomask.attention.verification.significance import (
    mcnemar,
    paired_loss_interval,
    wilson_interval,
)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 1), (6, 6), (0, 9)])
def test_mcnemar_counts_the_coin_tosses_that_are_at_least_as_uneven(first: int, second: int):
    tosses = list(product((0, 1), repeat=first + second))
    uneven = abs(first - second)
    as_uneven = [t for t in tosses if abs(len(t) - 2 * sum(t)) >= uneven]
    assert mcnemar(first, second) == pytest.approx(len(as_uneven) / len(tosses))


def test_the_wilson_interval_is_the_published_one():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 and 15 of 148.
    assert wilson_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)
    assert wilson_interval(15, 148) == pytest.approx((6.24, 16.05), abs=0.01)


@given(st.integers(1, 400), st.data())
def test_intervals_hold_what_was_measured(total: int, data: st.DataObject):
    right = data.draw(st.integers(0, total))
    low, high = wilson_interval(right, total)
    assert 0 <= low <= 100 * right / total + 1e-9
    assert 100 * right / total - 1e-9 <= high <= 100
    first = data.draw(st.integers(0, total))
    second = data.draw(st.integers(0, total - first))
    low, high = paired_loss_interval(first, second, total)
    assert low <= high
    assert math.isclose((low + high) / 2, 100 * (first - second) / (total + 2), abs_tol=1e-9)


def test_no_difference_found_is_not_certainty():
    low, high = paired_loss_interval(0, 0, 40)
    assert low < 0 < high
