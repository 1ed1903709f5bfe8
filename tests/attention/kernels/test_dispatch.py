"""What cannot be computed is refused before any executor sees it."""

import sys

import pytest
import torch
from tests.attention import layouts
from tests.attention.kernels.cases import ALL, Case, assert_close, make_case

from photomask.attention.kernels import LayerHeads, prefill_attention
from photomask.attention.kernels.arguments import check_kernel_arguments
from photomask.attention.kernels.dispatch import check_capability, choose_executor
from photomask.errors import DataError, MissingDependencyError, UsageError


@pytest.fixture(name="case")
def _case() -> Case:
    return make_case(layouts.regular(2, 20, 3), group=2, head_size=16)


@pytest.mark.parametrize("executor", ["auto", "torch"])
def test_a_processor_runs_plain_pytorch(case, executor):
    assert_close(case, prefill_attention(*case.arguments, executor=executor))


@pytest.mark.parametrize(
    ("place", "change", "problem"),
    [
        (0, lambda query: query[0], r"\[B, H, Q, D\]"),
        (1, lambda key: key[..., :8], r"\[B, G, K, D\]"),
        (0, lambda query: query[..., :8], "same batch and head size"),
        (0, lambda query: query[:, :3], "key heads must divide the number of query heads"),
        (0, lambda query: query[:, :, 1:], "the schedule is for 1 prompts, 53 queries"),
        (0, lambda query: query.half(), "share a floating-point dtype"),
        (4, lambda _: LayerHeads.of(ALL * 2, 2, "cpu"), "8 heads over 2 key heads, got 4 over 2"),
        (4, lambda _: LayerHeads.of(ALL, 1, "cpu"), "4 heads over 1 key heads, got 4 over 2"),
        (4, lambda _: LayerHeads.of(ALL, 2, "meta"), "on one device, got cpu, meta"),
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float8_e4m3fn])
def test_dtypes_that_no_kernel_takes_are_refused(dtype):
    query = torch.zeros(1, 1, 4, 16).to(dtype)
    with pytest.raises(DataError, match="takes float16, bfloat16, float32"):
        check_kernel_arguments(query, query, query)


def test_tensors_that_no_kernel_can_read_are_refused():
    large = torch.zeros(1, 1, 4, 257)
    with pytest.raises(DataError, match="at most 256"):
        check_kernel_arguments(large, large, large)
    query = torch.zeros(1, 1, 4, 16)
    with pytest.raises(DataError, match="value must be contiguous"):
        check_kernel_arguments(query, query, query.transpose(2, 3).contiguous().transpose(2, 3))


def test_executors_are_chosen_by_name_and_device():
    assert choose_executor("auto", torch.device("cpu")) == "torch"
    assert choose_executor("torch", torch.device("mps")) == "torch"
    with pytest.raises(UsageError, match="one of 'auto', 'triton', 'torch', got 'fastest'"):
        choose_executor("fastest", torch.device("cpu"))


@pytest.mark.parametrize(("executor", "device"), [("triton", "cpu"), ("auto", "mps")])
def test_a_device_without_kernels_is_not_slow_in_silence(executor, device):
    with pytest.raises(UsageError, match=f"not on '{device}'; executor='torch' runs it there"):
        choose_executor(executor, torch.device(device))


def test_a_gpu_that_is_too_old_is_refused():
    check_capability("A100", (8, 0))
    with pytest.raises(UsageError, match=r"need compute capability 8\.0, and T4 has 7\.5; exec"):
        check_capability("T4", (7, 5))


@pytest.mark.gpu
def test_a_gpu_without_triton_is_refused(monkeypatch):
    case = make_case(layouts.regular(2, 20, 3), head_size=16, device="cuda")
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    choose_executor.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"executor='torch'.*pip install 'triton"):
        prefill_attention(*case.arguments)
    choose_executor.cache_clear()
    assert_close(case, prefill_attention(*case.arguments, executor="torch"))
