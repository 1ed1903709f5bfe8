"""What cannot be computed is refused before any executor sees it."""

import pytest
import torch
from tests.attention import layouts
from tests.attention.kernels.cases import Case, assert_close, make_case

from photomask.attention.kernels import prefill_attention
from photomask.errors import DataError, UsageError


@pytest.fixture(name="case")
def _case() -> Case:
    return make_case(layouts.regular(2, 20, 3), group=2, head_size=16)


def test_a_processor_runs_plain_pytorch(case):
    assert_close(case, prefill_attention(*case.arguments))


@pytest.mark.parametrize(
    ("place", "change", "problem"),
    [
        (0, lambda query: query[0], r"\[B, H, Q, D\]"),
        (1, lambda key: key[..., :8], r"\[B, G, K, D\]"),
        (0, lambda query: query[..., :8], "same batch and head size"),
        (0, lambda query: query[:, :3], "that the key heads divide"),
        (0, lambda query: query[:, :, 1:], "the schedule is for 1 prompts, 53 queries"),
        (0, lambda query: query.half(), "share a floating-point dtype"),
        (4, lambda patterns: patterns.int(), r"patterns must be int8 \[4\]"),
        (4, lambda patterns: patterns[:2], r"patterns must be int8 \[4\]"),
        (4, lambda patterns: patterns.to("meta"), "on one device, got cpu, meta"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(case, place, change, problem):
    arguments = list(case.arguments)
    arguments[place] = change(arguments[place])
    with pytest.raises(DataError, match=problem):
        prefill_attention(*arguments)


def test_a_cache_that_is_too_short_is_refused(case):
    query, key, value, *rest = case.arguments
    with pytest.raises(DataError, match="53 keys, got 1, 53 and 52"):
        prefill_attention(query, key[:, :, 1:], value[:, :, 1:], *rest)


def test_gradients_are_refused_where_one_would_be_lost(case):
    query, *rest = case.arguments
    query.requires_grad_()
    with pytest.raises(UsageError, match="no backward pass"):
        prefill_attention(query, *rest)
    with torch.no_grad():
        assert not prefill_attention(query, *rest).requires_grad


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_are_no_positive_number_are_refused(case, scale):
    with pytest.raises(UsageError, match="positive number"):
        prefill_attention(*case.arguments[:5], scale)
