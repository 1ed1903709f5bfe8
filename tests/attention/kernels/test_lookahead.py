"""Dense heads whose images see both directions: a causal kernel, and then what lies ahead."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from tests.attention import layouts
from tests.attention.kernels.cases import ALL, Case, assert_close, make_case
from tests.attention.kernels.stand_in import StandIn, reference_log_sums
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention

from photomask.attention.kernels import dispatch, prefill_attention, reference_attention
from photomask.attention.kernels.dense_heads import (
    DenseHeads,
    attend_dense,
    cudnn,
    flash4,
    has_flash4,
)
from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, Pattern, SinkRule

pytest.importorskip("triton")
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
if not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton was imported without its interpreter", allow_module_level=True)

from photomask.attention.kernels.triton_lookahead import triton_look_ahead  # noqa: E402
from photomask.attention.kernels.triton_prefill import triton_prefill  # noqa: E402

D = Pattern.DENSE
S = Pattern.SINK
I = Pattern.INTRA_IMAGE  # noqa: E741
B = Pattern.INTRA_IMAGE_SINK
MIXTURES = {
    "mixed": ([D, S, D, D, D, S, B, I], 2),
    "scattered": ([D, D, S, D, S, I, S, D], 1),
    "dense": ([D] * 4, 2),
    "sparse": ([S, I, B, S], 4),
}
HALF = torch.float16  # the interpreter cannot multiply bfloat16
BOTH = DenseRule(bidirectional=True)
# On a GPU where there is one, else by the interpreter.
pytestmark = [pytest.mark.gpu] if ON_GPU else []
TAKES_CUDNN = ON_GPU and torch.cuda.get_device_capability() >= (8, 0)
TAKES_FLASH4 = TAKES_CUDNN and torch.cuda.get_device_capability()[0] in (9, 10) and has_flash4()
KERNELS = [
    pytest.param(cudnn, marks=pytest.mark.skipif(not TAKES_CUDNN, reason="needs cuDNN attention")),
    pytest.param(flash4, marks=pytest.mark.skipif(not TAKES_FLASH4, reason="needs flash-attn-4")),
]


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """Fills tensors that nobody has written to with NaN, on a processor."""
    torch.use_deterministic_algorithms(not ON_GPU)  # cuBLAS would refuse to run
    yield
    torch.use_deterministic_algorithms(False)


def two_prompts() -> PromptLayout:
    one = layouts.prompt(images=[37, 60], texts=[6, 0, 11], delimited=True)
    two = layouts.prompt(images=[50, 40, 1], texts=[0, 9, 3, 9], delimited=True)
    return layouts.batch([one, two], left=True)


def both_case(mixture: str, layout: PromptLayout | None = None, **options) -> Case:
    patterns, key_heads = MIXTURES[mixture]
    options = {"head_size": 16, "spare_keys": 5, "device": DEVICE, "rule": BOTH, **options}
    layout = layout or two_prompts()
    return make_case(layout, patterns=patterns, group=len(patterns) // key_heads, **options)


def cut(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    known = slice(0, case.schedule.keys)
    return case.query, case.key[:, :, known], case.value[:, :, known]


def skip_unless_taken(kernel, case: Case) -> None:
    if kernel is cudnn and not can_use_cudnn_attention(
        SDPAParams(*cut(case), None, 0.0, True, True)
    ):
        pytest.skip("cuDNN does not take such heads on this device")


def run(case: Case, kernel) -> Tensor:
    return dispatch.run_kernels(*case.arguments, triton_prefill, lambda *tensors: kernel, [])


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("query_start", [0, 21])  # cuts an image of both prompts
def test_a_causal_kernel_and_what_lies_ahead_make_a_layer(mixture, dtype, query_start):
    case, dense = both_case(mixture, dtype=dtype, query_start=query_start), StandIn()
    assert case.schedule.causal_and_ahead
    assert_close(case, run(case, dense))
    assert dense.gave_log_sums == [True] * len(case.heads.dense_calls)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("head_size", [8, 24, 80, 136])
def test_head_sizes_that_are_no_power_of_two(head_size, dtype):
    layout = layouts.regular(2, 20, 3)
    case = make_case(
        layout, patterns=[D], head_size=head_size, dtype=dtype, rule=BOTH, device=DEVICE
    )
    assert_close(case, run(case, StandIn()))


@pytest.mark.parametrize("length", [2, 63, 128, 260])
@pytest.mark.parametrize("tile_rows", [16, 128])
def test_odd_lengths_and_long_images(length, tile_rows):
    tokens = layouts.prompt(images=[150, 100], texts=[0, 2, 30], delimited=False)
    layout = layouts.batch([tokens[:length]], left=False)
    case = make_case(
        layout, patterns=[D], head_size=16, dtype=HALF, rule=BOTH, tile_rows=tile_rows,
        device=DEVICE,
    )  # fmt: skip
    assert_close(case, run(case, StandIn()))


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("factor", [0.0, 6.0])
def test_flat_and_peaked_weights(factor, dtype):
    layout, options = layouts.regular(2, 70, 5), {"head_size": 256, "dtype": dtype}
    case = both_case("dense", layout, spare_keys=0, **options)
    case = dataclasses.replace(case, query=case.query * factor)
    expected, eager = (
        reference_attention(
            *(tensor.cpu().to(precision) for tensor in (case.query, case.key, case.value)),
            layout, case.heads.patterns, SinkRule(), BOTH, case.scale,
        )
        for precision in (torch.float64, dtype)
    )  # fmt: skip
    case = dataclasses.replace(case, expected=expected, eager=eager)
    assert_close(case, run(case, StandIn()))


@given(layouts.prompts(20), st.integers(1, 2), st.data())
@settings(
    max_examples=200 if ON_GPU else 8,
    phases=[Phase.generate],  # the interpreter is too slow to look for a smaller case
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_layout(prompt, batch, data):
    layout = layouts.batch([prompt] * batch, left=False)
    layout = layout.tail(data.draw(st.integers(0, layout.tokens - 1)))
    start = data.draw(st.integers(0, layout.tokens - 1))
    case = make_case(
        layout, patterns=ALL, query_start=start, head_size=16, dtype=HALF, rule=BOTH, device=DEVICE
    )
    assume(case.schedule.causal_and_ahead)
    assert_close(case, run(case, StandIn()))


def test_rows_that_see_nothing_ahead_stay_as_they_are():
    layout = two_prompts()
    case = both_case("dense", layout, dtype=HALF)
    output = torch.randn_like(case.query)
    before = output.clone()
    log_sums = torch.randn(output.shape[:3], device=DEVICE)
    triton_look_ahead(case.query, case.key, case.value, case.schedule, case.scale, output, log_sums)
    ahead = (layout.stop - layout.positions > 1).to(DEVICE)
    changed = (output != before).any(-1)
    assert torch.equal(changed, ahead[:, None].expand_as(changed))


def test_several_programs_share_a_tile():
    case = both_case("dense", tile_rows=128)  # in float32 a program has 32 rows
    assert_close(case, run(case, StandIn()))


def test_strided_tensors():
    case = both_case("dense", dtype=HALF)
    strided = [
        tensor.transpose(1, 2).contiguous().transpose(1, 2)
        for tensor in (case.query, case.key, case.value)
    ]
    assert not strided[1].is_contiguous()
    case = dataclasses.replace(case, query=strided[0], key=strided[1], value=strided[2])
    assert_close(case, run(case, StandIn()))


def test_what_lies_ahead_follows_its_call_on_the_same_stream():
    case = both_case("mixed")
    order = []
    stream = ["current"]

    class Aside(contextlib.AbstractContextManager):
        def __enter__(self):
            stream.append("aside")

        def __exit__(self, *raised):
            stream.pop()

    def kernel(query, key, value, scale, output, log_sums):
        order.append(("causal", stream[-1], output.data_ptr(), log_sums.data_ptr()))
        return output

    def look_ahead(query, key, value, schedule, scale, output, log_sums):
        order.append(("ahead", stream[-1], output.data_ptr(), log_sums.data_ptr()))

    calls, compute = case.heads.dense_calls, DenseHeads(kernel, look_ahead)
    output = torch.empty_like(case.query)
    attend_dense(*cut(case), case.schedule, calls, case.scale, compute, output, Aside())
    assert len(order) == 2 * len(case.heads.dense_calls) >= 4
    assert [each[0] for each in order] == ["causal", "ahead"] * (len(order) // 2)
    assert {each[1] for each in order[:2]} == {"current"}
    assert {each[1] for each in order[2:4]} == {"aside"}
    assert all(one[2:] == other[2:] for one, other in zip(order[::2], order[1::2], strict=True))


def test_without_a_dense_kernel_the_sparse_one_computes_all_heads():
    case = both_case("mixed", dtype=HALF)
    assert_close(case, run(case, None))


def test_it_compiles_for_hopper_with_its_matrix_products():
    """Triton's interpreter, which the other tests need, compiles nothing: hence another process."""
    script = Path(__file__).with_name("compile_lookahead_for_hopper.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shared, products = map(int, done.stdout.split())
    assert shared <= 227 << 10
    assert products > 0


def test_what_the_stand_in_leaves_is_the_log_sum_exp():
    query, key = torch.randn(1, 2, 3, 8), torch.randn(1, 1, 5, 8)
    found = reference_log_sums(query, key, 0.5)
    expected = (query[0, 1, 0] @ key[0, 0, :3].T * 0.5).exp().sum().log()
    assert found[0, 1, 0].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_size", [64, 128, 256])
def test_dense_kernels_leave_the_logarithms_of_their_sums(kernel, dtype, head_size):
    case = both_case("dense", dtype=dtype, head_size=head_size)
    skip_unless_taken(kernel, case)
    log_sums, (query, key, value) = torch.empty(case.query.shape[:3], device=DEVICE), cut(case)
    output = kernel(query, key, value, case.scale, torch.empty_like(query), log_sums)
    plain = kernel(query, key, value, case.scale, torch.empty_like(query))
    expected = reference_log_sums(query, key, case.scale)
    assert torch.allclose(log_sums.double(), expected, atol=1e-3, rtol=1e-4)
    assert torch.allclose(output, plain, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_size", [64, 128, 256])
def test_mixed_layers_equal_the_literal_masks(kernel, mixture, dtype, head_size):
    long = layouts.prompt(images=[300, 256, 1, 129], texts=[9, 0, 7, 3, 200], delimited=True)
    layout = layouts.batch([long, long], left=False)
    case = both_case(mixture, layout, dtype=dtype, head_size=head_size, tile_rows=128)
    skip_unless_taken(kernel, case)
    assert_close(case, run(case, kernel))


@pytest.mark.skipif(not TAKES_CUDNN, reason="needs cuDNN attention")
@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("executor", ["auto", "triton"])
@pytest.mark.parametrize("query_start", [0, 21])
@pytest.mark.parametrize("head_size", [128, 256])
def test_every_executor_of_a_gpu(mixture, executor, query_start, head_size):
    options = {"head_size": head_size, "query_start": query_start, "tile_rows": 128}
    case = both_case(mixture, dtype=torch.bfloat16, **options)
    assert_close(case, prefill_attention(*case.arguments, executor=executor))


@pytest.mark.skipif(not TAKES_CUDNN, reason="needs cuDNN attention")
@pytest.mark.parametrize("mixture", ["mixed", "dense"])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_layer_does_not_wait_for_the_device(mixture):
    case = both_case(mixture, dtype=torch.bfloat16, head_size=256, tile_rows=128)
    prefill_attention(*case.arguments)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        prefill_attention(*case.arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not TAKES_CUDNN, reason="needs cuDNN attention")
@pytest.mark.parametrize("mixture", ["mixed", "dense"])
def test_a_layer_replays_from_a_cuda_graph(mixture):
    case = both_case(mixture, dtype=torch.bfloat16, head_size=256, tile_rows=128)
    first = prefill_attention(*case.arguments)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = prefill_attention(*case.arguments)
    for _ in range(2):
        captured.fill_(torch.nan)
        graph.replay()
        assert torch.equal(captured, first)
