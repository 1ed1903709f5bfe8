import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.observers.histogram import BINS, Histogram

WIDE = st.floats(2.0**-20, 2.0**100, width=32)
VALUES = st.lists(
    st.one_of(WIDE, WIDE.map(lambda x: -x), st.floats(2.0**-20, 2, width=32), st.just(0.0)),
    min_size=1,
    max_size=20,
)


def histogram_of(*batches: list[float]) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        values = torch.tensor(batch)
        histogram.add(values, values.min().item(), values.max().item())
    return histogram


@given(first=VALUES, second=VALUES)
@settings(max_examples=60, deadline=None)
def test_any_order_gives_the_same_histogram(first, second):
    results = [
        histogram_of(first, second),
        histogram_of(second, first),
        histogram_of(first + second),
        histogram_of(*[[value] for value in first + second]),
    ]
    for other in results[1:]:
        assert (other.exponent, other.first) == (results[0].exponent, results[0].first)
        assert torch.equal(other.counts, results[0].counts)


@given(first=VALUES, second=VALUES)
@settings(max_examples=60, deadline=None)
def test_every_value_is_counted_in_its_own_bin(first, second):
    edges, counts = (tensor.numpy() for tensor in histogram_of(first, second).distribution())
    values = np.array(first + second, dtype=np.float32).astype(np.float64)
    # numpy closes its last bin; ours are all half open, so one more edge keeps them apart.
    edges_open = np.append(edges, edges[-1] + (edges[1] - edges[0]))
    expected = np.histogram(values, bins=edges_open)[0]
    assert expected[-1] == 0
    np.testing.assert_array_equal(counts, expected[:-1])
    assert counts.sum() == len(values)


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_bins_are_a_power_of_two_wide_and_half_are_in_use(values):
    histogram = histogram_of(values)
    edges, _ = histogram.distribution()
    width = (edges[1] - edges[0]).item()
    assert math.frexp(width)[0] == 0.5
    span = max(*values, 0.0) - min(*values, 0.0)
    assert 0 in edges
    if span > 2.0**-80:
        assert BINS // 2 <= len(edges) <= BINS + 1


def test_many_equal_values_are_all_counted():
    # More than 2**24: a float32 count would stand still.
    histogram = Histogram()
    for count in (1, (1 << 24) + 1):
        histogram.add(torch.zeros(1).expand(count), 0.0, 0.0)
    assert histogram.distribution()[1].sum().item() == (1 << 24) + 2
