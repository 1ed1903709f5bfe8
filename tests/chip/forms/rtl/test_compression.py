"""Compressed tiles add up to the tile, and each keeps the pattern."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photomask.chip.forms.rtl.compression import compress, pattern_numbers, positions_of
from photomask.chip.sparsity import NofM

patterns = st.integers(2, 6).flatmap(
    lambda group: st.builds(NofM, kept=st.integers(1, group - 1), group=st.just(group))
)


@given(patterns, st.integers(1, 3), st.integers(1, 3), st.integers(0, 999), st.floats(0, 1))
def test_the_passes_of_a_tile_add_up_to_it(
    pattern: NofM, groups: int, columns: int, seed: int, zeros: float
):
    random = np.random.default_rng(seed)
    tile = random.integers(-9, 10, (groups * pattern.group, columns))
    tile[random.random(tile.shape) < zeros] = 0
    passes = compress(tile, pattern)
    most = max(
        np.count_nonzero(tile[start : start + pattern.group, column])
        for start in range(0, len(tile), pattern.group)
        for column in range(columns)
    )
    assert len(passes) == -(-most // pattern.kept)
    total = np.zeros_like(tile)
    for held in passes:
        assert held.patterns is not None
        for (group, column), number in np.ndenumerate(held.patterns):
            positions = positions_of(number, pattern)
            assert len(set(positions)) == pattern.kept
            for slot, position in enumerate(positions):
                weight = held.weights[group * pattern.kept + slot, column]
                total[group * pattern.group + position, column] += weight
    assert np.array_equal(total, tile)


@pytest.mark.parametrize(("kept", "group", "bits"), [(2, 4, 3), (1, 4, 2), (4, 8, 7), (3, 5, 4)])
def test_the_numbers_of_patterns_have_no_gap(kept: int, group: int, bits: int):
    sets = list(itertools.combinations(range(group), kept))
    positions = np.array(sets).reshape(len(sets), kept, 1)
    numbers = pattern_numbers(positions)[:, 0]
    assert sorted(numbers) == list(range(len(sets)))
    pattern = NofM(kept=kept, group=group)
    assert pattern.index_bits == bits == int(numbers.max()).bit_length()
    assert positions_of(numbers, pattern).tolist() == [list(one) for one in sets]
    assert positions_of(np.array(0), pattern).tolist() == list(range(kept))
