"""Softmax and norms beside the real functions: the errors that their definitions promise."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.formats import Interval
from photomask.chip.operators import Embedding, Normalize, Softmax

BITS, RECIPROCAL = 15, 40


def exponents(scale: float, count: int) -> np.ndarray:
    return np.rint(np.ldexp(np.exp(-np.arange(count) * scale), BITS)).astype(np.int64)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(-128, 127), min_size=1, max_size=200), st.floats(0.001, 0.5))
def test_a_softmax_is_within_its_bound_of_the_tables_softmax(codes, scale):
    x, table = np.array([[codes]]), exponents(scale, 256)
    operator = Softmax(fraction_bits=BITS, reciprocal_bits=RECIPROCAL)
    found = operator.run_numpy([x], {"table": table})[0, 0]
    chosen = [int(table[max(codes) - code]) for code in codes]
    bound = Fraction(1, 2) + Fraction(int(table[0]), 2 ** (RECIPROCAL - BITS))
    for value, exponent in zip(found.tolist(), chosen, strict=True):
        assert abs(value - Fraction(exponent * 2**BITS, sum(chosen))) <= bound


def test_a_softmax_of_one_element_is_one_and_of_none_is_zero():
    operator = Softmax(fraction_bits=BITS, reciprocal_bits=RECIPROCAL)
    x, mask = np.array([[5, -3, 7]]), np.array([[0, 1, 0]])
    table = exponents(0.1, 256)
    assert operator.run_numpy([x, mask], {"table": table}).tolist() == [[0, 1 << BITS, 0]]
    assert operator.run_numpy([x, 0 * mask], {"table": table}).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("shapes", "parameters", "message"),
    [
        ([(1, 4)], {"table": np.array([0, 0])}, "positive"),
        ([(1, 4)], {"table": np.array([2, 3])}, "fall"),
        ([(1, 4)], {"table": np.array([[2]])}, "shape"),
        ([(1, 4)], {"table": np.array([1 << 39])}, "reciprocal_bits"),
        ([(1, 4)], {"table": np.array([2]), "mask": np.ones(3, np.int64)}, "broadcast|mask"),
        ([(1, 4), (1, 4), (1, 4)], {"table": np.array([2])}, "3 inputs"),
    ],
)
def test_softmaxes_that_cannot_run_are_refused(shapes, parameters, message):
    operator = Softmax(fraction_bits=BITS, reciprocal_bits=RECIPROCAL)
    with pytest.raises(ValueError, match=message):
        operator.output_shape(shapes, parameters)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(-(1 << 15), (1 << 15) - 1), min_size=1, max_size=100),
    st.booleans(),
    st.integers(1, 20),
    st.integers(1, 1 << 50),
)
def test_a_norm_is_within_its_bound_of_the_real_one(codes, centred, fraction_bits, epsilon):
    terms = len(codes)
    operator = Normalize(
        terms=terms,
        centred=centred,
        zero_point=0,
        epsilon=epsilon,
        fraction_bits=fraction_bits,
    )
    parameters = {"gain": np.ones(terms, np.int64), "bias": np.zeros(terms, np.int64)}
    found = operator.run_numpy([np.array([codes])], parameters)[0]
    total = sum(codes) if centred else 0
    scaled = [(terms if centred else 1) * code - total for code in codes]
    squares = sum(d * d for d in scaled) + epsilon
    # |found - 2**f * d / sqrt(v)| <= bound, without a square root: compared as squares.
    bound = Fraction(1, 2) + Fraction(2**fraction_bits, 2**21)
    for value, d in zip(found.tolist(), scaled, strict=True):
        largest, least = abs(value) + bound, max(Fraction(0), abs(value) - bound)
        exact = Fraction((d * 2**fraction_bits) ** 2, squares)
        assert least**2 <= exact <= largest**2
        assert value * d >= 0


def test_a_constant_row_gives_the_bias():
    operator = Normalize(terms=3, centred=True, zero_point=0, epsilon=1, fraction_bits=8)
    parameters = {"gain": np.array([5, 6, 7]), "bias": np.array([1, -2, 3])}
    assert operator.run_numpy([np.full((1, 3), 99)], parameters).tolist() == [[1, -2, 3]]


def test_squares_beyond_62_bits_are_refused():
    operator = Normalize(terms=4096, centred=True, zero_point=0, epsilon=1, fraction_bits=8)
    parameters = {role: np.ones(4096, np.int64) for role in ("gain", "bias")}
    with pytest.raises(ValueError, match="62 bits"):
        operator.output_interval([Interval(-(1 << 15), (1 << 15) - 1)], parameters)


def test_rows_outside_the_table_are_refused():
    with pytest.raises(ValueError, match="rows 0 to 4"):
        Embedding().output_interval([Interval(0, 5)], {"table": np.ones((5, 2), np.int64)})
