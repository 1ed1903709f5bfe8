"""Every head goes to one kernel, with as few copied keys as the plan allows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from photomask.attention.kernels import LayerHeads
from photomask.attention.kernels.heads import Remainder, Selection, route_heads
from photomask.attention.patterns import Pattern
from photomask.errors import DataError

D, S = Pattern.DENSE, Pattern.SINK
GROUPS = st.integers(1, 8).flatmap(
    lambda group: st.lists(
        st.lists(st.sampled_from(Pattern), min_size=group, max_size=group), min_size=1, max_size=8
    )
)


@given(GROUPS, st.sampled_from(Remainder))
def test_every_head_is_computed_once_with_the_keys_it_reads(groups, remainder):
    patterns = [pattern for group in groups for pattern in group]
    route = route_heads(patterns, len(groups), remainder)
    computed = list(route.sparse)
    for call in route.dense:
        computed += call.heads
        assert all(patterns[head] is Pattern.DENSE for head in call.heads)
        shared, left = divmod(len(call.heads), len(call.key_heads))
        assert left == 0
        owners = [call.key_heads[place // shared] for place in range(len(call.heads))]
        assert owners == [head // len(groups[0]) for head in call.heads]
    assert sorted(computed) == list(range(len(patterns)))
    assert list(route.sparse) == sorted(route.sparse)


@given(GROUPS)
def test_what_every_key_head_has_runs_without_copied_keys(groups):
    """And the remainder goes where it was asked to."""
    patterns = [pattern for group in groups for pattern in group]
    shared = min(group.count(Pattern.DENSE) for group in groups)
    dense, all_keys = patterns.count(Pattern.DENSE), tuple(range(len(groups)))
    gathered = route_heads(patterns, len(groups), Remainder.GATHERED)
    alone = route_heads(patterns, len(groups), Remainder.SPARSE)
    for route in (gathered, alone):
        assert bool(route.dense and route.dense[0].key_heads == all_keys) == bool(shared)
    assert len(gathered.sparse) == len(patterns) - dense
    assert len(alone.sparse) == len(patterns) - shared * len(groups)
    assert len(alone.dense) <= 1
    assert len(gathered.dense) <= 2


def test_one_key_head_with_more_dense_heads_than_the_other():
    patterns = [D, S, D, D, S, D, S, S]
    first, second = route_heads(patterns, 2).dense
    assert (first.heads, first.key_heads) == ((0, 5), (0, 1))
    assert (second.heads, second.key_heads) == ((2, 3), (0,))


def test_key_heads_repeat_no_more_often_than_an_even_share_needs():
    patterns = [D, D, D, D, D, D, S, S, S, S, S, S]
    (call,) = route_heads(patterns, 3).dense
    assert (call.heads, call.key_heads) == ((0, 1, 2, 3, 4, 5), (0, 0, 1))


@pytest.mark.parametrize("numbers", [(2, 3), (0,), (3, 1), (1, 1, 2)])
def test_selected_heads_are_taken_and_put_in_order(numbers):
    tensor = torch.randn(2, 4, 3, 5)
    selection = Selection.of(numbers, tensor.device)
    taken = selection.take(tensor)
    assert torch.equal(taken, tensor[:, list(numbers)])
    in_place = taken.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    assert in_place == (numbers in ((2, 3), (0,)))
    output = torch.full_like(tensor, torch.nan)
    selection.put(output, taken)
    expected = torch.full_like(tensor, torch.nan)
    expected[:, list(numbers)] = tensor[:, list(numbers)]
    assert torch.equal(output.nan_to_num(9), expected.nan_to_num(9))


def test_the_heads_of_a_layer_are_the_same_on_host_and_device():
    heads = LayerHeads.of([D, S, Pattern.INTRA_IMAGE, D], 2, "cpu")
    assert heads.patterns == (D, S, Pattern.INTRA_IMAGE, D)
    assert heads.codes.tolist() == [3, 0, 1, 3]
    assert heads.codes.dtype == torch.int8
    assert heads.every.tolist() == [0, 1, 2, 3]
    assert heads.sparse.tolist() == [1, 2]
    assert heads.every.dtype == heads.sparse.dtype == torch.int32
    (call,) = heads.dense_calls
    assert call.heads.index.tolist() == [0, 3]
    assert call.key_heads.as_slice == slice(0, 2)
    assert not heads.all_in_one_dense_call


def test_a_layer_of_dense_heads_is_one_call_without_copies():
    heads = LayerHeads.of([D] * 28, 4, "cpu")
    assert heads.all_in_one_dense_call
    (call,) = heads.dense_calls
    assert (call.heads.as_slice, call.key_heads.as_slice) == (slice(0, 28), slice(0, 4))
    assert not LayerHeads.of([S] * 28, 4, "cpu").dense_calls


@pytest.mark.parametrize(("heads", "key_heads"), [(0, 1), (4, 0), (4, 3)])
def test_heads_that_the_key_heads_do_not_divide_are_refused(heads, key_heads):
    with pytest.raises(DataError, match=f"{key_heads} key heads do not divide {heads} heads"):
        LayerHeads.of([D] * heads, key_heads, "cpu")
