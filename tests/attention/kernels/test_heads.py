"""Every head goes to one kernel, and what a dense kernel reads is a view."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from photomask.attention.kernels import LayerHeads
from photomask.attention.kernels.heads import DenseCall, route_heads
from photomask.attention.patterns import Pattern
from photomask.errors import DataError

D, S = Pattern.DENSE, Pattern.SINK
GROUPS = st.integers(1, 8).flatmap(
    lambda group: st.lists(
        st.lists(st.sampled_from([D, D, *Pattern]), min_size=group, max_size=group),
        min_size=1,
        max_size=8,
    )
)


@given(GROUPS)
def test_every_head_is_computed_once_with_the_keys_it_reads(groups):
    patterns = [pattern for group in groups for pattern in group]
    numbers, owners = range(len(patterns)), range(len(groups))
    route = route_heads(patterns, len(groups))
    computed = list(route.sparse)
    assert all(patterns[head] is not Pattern.DENSE for head in computed)
    for call in route.dense:
        heads, keys = numbers[call.heads], owners[call.key_heads]
        shared, left = divmod(len(heads), len(keys))
        assert left == 0
        read = [keys[place // shared] for place in range(len(heads))]
        assert read == [head // len(groups[0]) for head in heads]
        computed += heads
    assert sorted(computed) == list(numbers)
    sizes = [len(numbers[call.heads]) for call in route.dense]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("group", "steps"),
    [
        ([D, S, S, D, S, S, D], [slice(0, 7, 3)]),
        ([S, D, S, S, D, S, S], [slice(1, 5, 3)]),
        ([S, S, D, S, S, S, S], [slice(2, 3, 1)]),
        ([D, D, S, S, D, S, D], [slice(0, 2, 1), slice(4, 7, 2)]),
    ],
)
def test_heads_at_equal_steps_are_one_call(group, steps):
    route = route_heads([S] * 7 + group, 2)
    moved = [slice(each.start + 7, each.stop + 7, each.step) for each in steps]
    assert sorted(route.dense, key=lambda call: call.heads.start) == [
        DenseCall(heads, slice(1, 2, 1)) for heads in moved
    ]


def test_heads_that_each_read_another_key_head_are_one_call():
    assert route_heads([D, S, D, S, D, S], 6).dense == (DenseCall(slice(0, 5, 2), slice(0, 5, 2)),)
    assert route_heads([S, D] * 8, 8).dense == (DenseCall(slice(1, 16, 2), slice(0, 8, 1)),)
    assert route_heads([D] * 6, 6).dense == (DenseCall(slice(0, 6, 1), slice(0, 6, 1)),)


def test_key_heads_of_dense_heads_alone_are_one_call():
    route = route_heads([D, D, D, D, S, D], 3)
    assert route.dense == (
        DenseCall(slice(0, 4), slice(0, 2)),
        DenseCall(slice(5, 6, 1), slice(2, 3, 1)),
    )


def test_the_heads_of_a_layer_are_the_same_on_host_and_device():
    heads = LayerHeads.of([D, S, Pattern.INTRA_IMAGE, D], 2, "cpu")
    assert heads.patterns == (D, S, Pattern.INTRA_IMAGE, D)
    assert heads.codes.tolist() == [3, 0, 1, 3]
    assert heads.codes.dtype == torch.int8
    assert heads.every.tolist() == [0, 1, 2, 3]
    assert heads.sparse.tolist() == [1, 2]
    assert heads.every.dtype == heads.sparse.dtype == torch.int32
    assert len(heads.dense_calls) == 2
    assert not heads.all_in_one_dense_call


def test_a_layer_of_dense_heads_is_one_call_without_copies():
    heads = LayerHeads.of([D] * 28, 4, "cpu")
    assert heads.all_in_one_dense_call
    (call,) = heads.dense_calls
    assert call == DenseCall(slice(0, 28), slice(0, 4))
    assert not LayerHeads.of([S] * 28, 4, "cpu").dense_calls


@pytest.mark.parametrize(("heads", "key_heads"), [(0, 1), (4, 0), (4, 3)])
def test_heads_that_the_key_heads_do_not_divide_are_refused(heads, key_heads):
    with pytest.raises(DataError, match=f"{key_heads} key heads do not divide {heads} heads"):
        LayerHeads.of([D] * heads, key_heads, "cpu")
