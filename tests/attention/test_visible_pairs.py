"""The counts of visible pairs equal what the masks hold."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.attention import layouts

from photomask.attention.intervals import IntervalBuilder
from photomask.attention.patterns import DenseRule, Pattern, SinkRule, visible
from photomask.attention.visible_pairs import visible_pairs
from photomask.errors import UsageError


@given(layouts.layouts(), layouts.sink_rules(), layouts.dense_rules(), st.data())
def test_counts_equal_the_masks(layout, sinks, rule, data):
    start = data.draw(st.integers(0, layout.tokens))
    for pattern in Pattern:
        counted = visible_pairs(layout, pattern, sinks, rule, start)
        assert counted.dtype == torch.int64
        assert counted.tolist() == visible(layout, pattern, sinks, rule, start).sum((1, 2)).tolist()


def test_counts_of_a_long_prompt_fit_their_type():
    layout = layouts.regular(images=100, size=1296, text=40)
    pairs = visible_pairs(layout, Pattern.DENSE, SinkRule(), DenseRule())
    assert pairs.item() == layout.tokens * (layout.tokens + 1) // 2 > 2**31


@pytest.mark.parametrize(
    ("rule", "start"), [(DenseRule(window=0), 0), (DenseRule(), -1), (DenseRule(), 99)]
)
def test_impossible_requests_are_refused(rule, start):
    with pytest.raises(UsageError):
        IntervalBuilder(layouts.regular(1, 4, 2), SinkRule(), rule, start)
