"""Dense heads go to a dense kernel, the others to the sparse one, and the layer is the same."""

import dataclasses
import os
from contextlib import nullcontext

import pytest
import torch
from tests.attention import layouts
from tests.attention.kernels.cases import Case, assert_close, make_case
from tests.attention.kernels.stand_in import StandIn
from torch import Tensor

from photomask.attention.kernels import LayerHeads, dispatch, prefill_attention
from photomask.attention.kernels.dense_heads import (
    DenseHeads,
    attend_dense,
    choose_dense_kernel,
    cudnn,
    flash4,
    flash4_takes,
    has_flash4,
)
from photomask.attention.patterns import DenseRule, Pattern

D = Pattern.DENSE
S = Pattern.SINK
I = Pattern.INTRA_IMAGE  # noqa: E741
B = Pattern.INTRA_IMAGE_SINK
EVEN = [D, S, D, I, D, S, B, D]
"""Over two key heads, each of which has two dense heads."""
UNEVEN = [D, S, D, D, D, S, B, I]
ONE_SIDED = [D, D, S, D, S, I, S, B]
ALL_DENSE = [D] * 8
MIXTURES = {
    "even": (EVEN, 2),
    "uneven": (UNEVEN, 2),
    "one-sided": (ONE_SIDED, 2),
    "dense": (ALL_DENSE, 2),
    "sparse": ([S, I, B, S], 4),
    "28/4": (([D, S, B, D, I, S, D] + [S, D, S, D, D, S, D] + [D] * 7 + [B, S, S, S, S, D, S]), 4),
    "16/8": ([D, S, S, D] * 4, 8),
}
# On a GPU where there is one, else on the CPU, as far as that can.
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []
TAKES_CUDNN = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
TAKES_FLASH4 = TAKES_CUDNN and torch.cuda.get_device_capability()[0] in (9, 10) and has_flash4()
KERNELS = [
    pytest.param(cudnn, marks=pytest.mark.skipif(not TAKES_CUDNN, reason="needs cuDNN attention")),
    pytest.param(flash4, marks=pytest.mark.skipif(not TAKES_FLASH4, reason="needs flash-attn-4")),
]


def attend(
    case: Case, kernel: StandIn, output: Tensor, tensors: tuple[Tensor, ...] | None = None
) -> None:
    calls, tensors = case.heads.dense_calls, tensors or cut(case)
    compute = DenseHeads(kernel, None)
    attend_dense(*tensors, case.schedule, calls, case.scale, compute, output, nullcontext())


def causal_case(mixture: str, **options) -> Case:
    patterns, key_heads = MIXTURES[mixture]
    one = layouts.prompt(images=[37, 60], texts=[6, 0, 9], delimited=True)
    two = layouts.prompt(images=[50, 40], texts=[0, 9, 13], delimited=True)
    layout = layouts.batch([one, two], left=True)
    options = {"head_size": 16, "spare_keys": 5, **options}
    return make_case(layout, patterns=patterns, group=len(patterns) // key_heads, **options)


def cut(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    known = slice(0, case.schedule.keys)
    return case.query, case.key[:, :, known], case.value[:, :, known]


def shares_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("query_start", [0, 41])
def test_calls_compute_their_heads_and_leave_the_others(mixture, query_start):
    case = causal_case(mixture, query_start=query_start)
    heads, output = case.heads, torch.full_like(case.query, torch.nan)
    attend(case, StandIn(), output)
    left = heads.sparse.tolist()
    computed = [head for head in heads.every.tolist() if head not in left]
    assert output[:, left].isnan().all()
    part = {name: getattr(case, name)[:, computed] for name in ("query", "expected", "eager")}
    assert_close(dataclasses.replace(case, **part), output[:, computed])


@pytest.mark.parametrize("mixture", MIXTURES)
def test_nothing_is_copied(mixture):
    case, stand_in = causal_case(mixture), StandIn()
    attend(case, stand_in, torch.empty_like(case.query))
    assert len(stand_in.calls) == len(case.heads.dense_calls)
    for given in stand_in.calls:
        assert all(map(shares_memory, given, (case.query, case.key, case.value)))


def test_strided_tensors_are_computed_in_their_strides():
    case = causal_case("uneven")
    tensors = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in cut(case)]
    output, strided = torch.empty_like(case.query), torch.empty_like(tensors[0])
    assert strided.stride() == tensors[0].stride() != output.stride()
    attend(case, StandIn(), output)
    attend(case, StandIn(), strided, tuple(tensors))
    computed = [head for head, pattern in enumerate(case.heads.patterns) if pattern is D]
    assert torch.equal(strided[:, computed], output[:, computed])


def _sparse_stand_in(query, key, value, schedule, codes, heads, scale, output) -> None:
    """Writes the number of every head that it is given."""
    del query, key, value, schedule, codes, scale
    output[:, heads.long()] = heads[:, None, None].to(output.dtype)


def run_stand_ins(case: Case, dense: StandIn | None) -> Tensor:
    return dispatch.run_kernels(*case.arguments, _sparse_stand_in, lambda *tensors: dense, [])


@pytest.mark.parametrize(
    ("dense", "names"),
    [(StandIn(), ["StandIn", "_sparse_stand_in"]), (None, ["_sparse_stand_in"])],
    ids=["both", "sparse"],
)
def test_the_kernels_that_ran_are_named(dense: StandIn | None, names: list[str]):
    ran: list[str] = []
    case = causal_case("uneven")
    dispatch.run_kernels(*case.arguments, _sparse_stand_in, lambda *tensors: dense, ran)
    assert ran == names


def test_kernels_share_a_layer_out():
    case, dense = causal_case("uneven"), StandIn()
    output = run_stand_ins(case, dense)
    assert len(dense.calls) == len(case.heads.dense_calls)
    assert not any(dense.gave_log_sums)
    for head, pattern in enumerate(UNEVEN):
        assert bool((output[:, head] == head).all()) == (pattern is not D)


def test_a_dense_layer_is_one_call_on_the_tensors_themselves():
    case, dense = causal_case("dense"), StandIn()
    assert_close(case, run_stand_ins(case, dense))
    ((query, key, value),) = dense.calls
    assert query is case.query
    assert shares_memory(key, case.key)
    assert shares_memory(value, case.value)


@pytest.mark.parametrize(
    "rule", [DenseRule(window=30), DenseRule(bidirectional=True, window=30), DenseRule()]
)
def test_the_sparse_kernel_computes_what_no_dense_kernel_takes(rule):
    case = causal_case("uneven", rule=rule)
    dense = None if rule == DenseRule() else StandIn()
    output = run_stand_ins(case, dense)
    assert all(bool((output[:, head] == head).all()) for head in range(8))


def test_padding_keeps_dense_heads_in_the_sparse_kernel():
    layout = layouts.batch(
        [layouts.prompt(images=[9], texts=[3, 2], delimited=True)], left=True, extra=1
    )
    output = run_stand_ins(make_case(layout, head_size=16), StandIn())
    assert bool((output[:, 0] == 0).all())


@pytest.mark.parametrize(
    ("capability", "dtype", "head_size", "takes"),
    [
        ((9, 0), torch.bfloat16, 128, True),
        ((10, 0), torch.float16, 64, True),
        ((9, 0), torch.float16, 256, True),
        ((10, 3), torch.bfloat16, 80, True),
        ((9, 0), torch.float32, 128, False),
        ((8, 0), torch.bfloat16, 128, False),
        ((12, 0), torch.bfloat16, 128, False),
        ((9, 0), torch.bfloat16, 136, False),
        ((9, 0), torch.bfloat16, 20, False),
    ],
)
def test_what_flash_attention_4_takes(capability, dtype, head_size, takes):
    assert flash4_takes(capability, dtype, head_size) == takes


def run_with(kernel, case: Case, heads: LayerHeads) -> Tensor:
    from photomask.attention.kernels.triton_prefill import triton_prefill

    tensors = (case.query, case.key, case.value, case.schedule)
    return dispatch.run_kernels(
        *tensors, heads, case.scale, triton_prefill, lambda *tensors: kernel, []
    )


@pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1",
    reason="Triton was imported without its interpreter",
)
@pytest.mark.parametrize("mixture", ["even", "one-sided"])
def test_a_stand_in_and_triton_make_a_layer(mixture):
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    case, stand_in = causal_case(mixture, dtype=torch.float16, device=device), StandIn()
    assert_close(case, run_with(stand_in, case, case.heads))
    assert stand_in.calls


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_size", [64, 128])
def test_mixed_layers_equal_the_literal_masks(kernel, mixture, dtype, head_size):
    case = causal_case(mixture, dtype=dtype, head_size=head_size, device="cuda")
    assert_close(case, run_with(kernel, case, case.heads))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("length", [2, 63, 129, 1000])
def test_odd_lengths(kernel, length):
    tokens = layouts.prompt(images=[49] * 16, texts=[30] + [9] * 16, delimited=True)
    layout = layouts.batch([tokens[:length]], left=False)
    case = make_case(layout, patterns=EVEN, group=4, dtype=torch.bfloat16, device="cuda")
    assert_close(case, run_with(kernel, case, case.heads))


@pytest.mark.skipif(not TAKES_CUDNN, reason="needs cuDNN attention")
@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("executor", ["auto", "triton"])
@pytest.mark.parametrize("query_start", [0, 41])
def test_every_executor_of_a_gpu_equals_the_literal_masks(mixture, executor, query_start):
    case = causal_case(
        mixture, dtype=torch.bfloat16, head_size=64, query_start=query_start, device="cuda"
    )
    assert_close(case, prefill_attention(*case.arguments, executor=executor))


@pytest.mark.skipif(not TAKES_CUDNN, reason="needs cuDNN attention")
def test_the_fastest_kernel_that_takes_the_tensors_is_chosen():
    whole = causal_case("even", dtype=torch.bfloat16, head_size=64, device="cuda")
    chunk = causal_case("even", dtype=torch.bfloat16, head_size=64, query_start=41, device="cuda")
    exact = causal_case("even", device="cuda")
    assert choose_dense_kernel(*cut(whole)) is (flash4 if TAKES_FLASH4 else cudnn)
    assert choose_dense_kernel(*cut(chunk)) is (flash4 if TAKES_FLASH4 else None)
    assert choose_dense_kernel(*cut(exact)) is None


@pytest.mark.skipif(not TAKES_CUDNN, reason="needs cuDNN attention")
@pytest.mark.parametrize("mixture", ["uneven", "dense", "28/4", "sparse"])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_layer_does_not_wait_for_the_device(mixture):
    case = causal_case(mixture, dtype=torch.bfloat16, head_size=64, device="cuda")
    prefill_attention(*case.arguments)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        prefill_attention(*case.arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not TAKES_CUDNN, reason="needs cuDNN attention")
@pytest.mark.parametrize("mixture", ["uneven", "dense", "28/4", "sparse"])
def test_a_layer_replays_from_a_cuda_graph(mixture):
    case = causal_case(mixture, dtype=torch.bfloat16, head_size=64, device="cuda")
    first = prefill_attention(*case.arguments)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = prefill_attention(*case.arguments)
    for _ in range(2):
        captured.fill_(torch.nan)
        graph.replay()
        assert torch.equal(captured, first)
    case.query.neg_()
    graph.replay()
    assert torch.equal(captured, prefill_attention(*case.arguments))
