import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from photomask.chip.sparsity import Blocks, NofM, WeightSparsity


@st.composite
def weights(draw):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 19), st.integers(1, 3)))
    seed, density = draw(st.integers(0, 9999)), draw(st.floats(0, 1))
    generator = np.random.default_rng(seed)
    return generator.integers(-7, 8, shape) * (generator.random(shape) < density)


@given(weights(), st.integers(2, 9))
def test_groups_are_counted_as_a_plain_loop_counts_them(weight, group):
    found = NofM(kept=1, group=group).counts(weight)
    outputs, inputs, kernel = weight.shape
    for o in range(outputs):
        for k in range(kernel):
            for number, begin in enumerate(range(0, inputs, group)):
                expected = sum(
                    weight[o, i, k] != 0 for i in range(begin, min(inputs, begin + group))
                )
                assert found[o, number, k] == expected


@given(weights(), st.integers(1, 5), st.integers(1, 5))
def test_blocks_are_occupied_where_a_plain_loop_finds_a_number(weight, outputs, inputs):
    found = Blocks(outputs=outputs, inputs=inputs).occupied(weight)
    for at in np.ndindex(*found.shape):
        rows = slice(at[0] * outputs, (at[0] + 1) * outputs)
        columns = slice(at[1] * inputs, (at[1] + 1) * inputs)
        assert found[at] == bool(weight[rows, columns, at[2]].any())


@given(weights())
def test_the_tightest_pattern_holds_and_no_weight_breaks_it(weight):
    found = NofM.tightest(weight, 4)
    if found is not None:
        assert found.holds(weight)
        assert 2**found.index_bits >= math.comb(found.group, found.kept)
        assert found.kept * 4 + found.index_bits < 4 * found.group


def test_an_index_of_two_of_four_takes_three_bits():
    assert NofM(kept=2, group=4).index_bits == 3
    assert NofM(kept=1, group=4).index_bits == 2
    assert NofM(kept=4, group=4).index_bits == 0


def test_two_of_four_is_recognized():
    weight = np.zeros((3, 8, 2), dtype=np.int64)
    weight[:, [0, 1, 5, 6]] = 1
    assert WeightSparsity.of(weight, 8) == WeightSparsity(48, 24, NofM(kept=2, group=4), 0)


def test_a_dense_weight_has_no_pattern():
    assert WeightSparsity.of(np.ones((2, 8)), 8).pattern is None


def test_outputs_without_weights_are_counted():
    weight = np.ones((4, 2, 3))
    weight[[1, 3]] = 0
    found = WeightSparsity.of(weight, 8)
    assert (found.zero_outputs, found.sparsity) == (2, 0.5)


def test_more_than_the_group_cannot_be_kept():
    with pytest.raises(ValidationError, match="N must be at most M"):
        NofM(kept=5, group=4)
