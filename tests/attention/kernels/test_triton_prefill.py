"""The Triton kernel equals the reference: small cases everywhere, all sizes on a GPU."""

import dataclasses
import os

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.attention import layouts
from tests.attention.kernels.cases import ALL, Case, assert_close, make_case, run_sparse

from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, SinkRule

pytest.importorskip("triton")
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
if not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton was imported without its interpreter", allow_module_level=True)

from photomask.attention.kernels import triton_prefill as module  # noqa: E402

# On a GPU where there is one, else by the interpreter.
pytestmark = [pytest.mark.gpu] if ON_GPU else []
HALF = torch.float16  # the interpreter cannot multiply bfloat16
RULES = [
    DenseRule(),
    DenseRule(bidirectional=True),
    DenseRule(window=20),
    DenseRule(window=20, window_spares_own_image=True, bidirectional=True),
]


def run(case: Case) -> None:
    assert_close(case, run_sparse(case, module.triton_prefill))


def two_prompts(left: bool) -> PromptLayout:
    one = layouts.prompt(images=[37, 5], texts=[6, 0, 3], delimited=True)
    two = layouts.prompt(images=[30], texts=[4, 7], delimited=False, cut=9)
    return layouts.batch([one, two], left=left, extra=1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("left", [True, False])
def test_padded_batches_of_every_rule(rule, left):
    run(make_case(two_prompts(left), rule=rule, group=2, head_size=16, dtype=HALF, device=DEVICE))


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("head_size", [8, 24, 80])
def test_head_sizes_that_are_no_power_of_two(head_size, dtype):
    layout = layouts.regular(2, 20, 3)
    run(make_case(layout, head_size=head_size, dtype=dtype, device=DEVICE))


@pytest.mark.parametrize("length", [1, 63, 100])
def test_odd_lengths(length):
    tokens = layouts.prompt(images=[49, 60], texts=[5, 2, 3], delimited=True)
    layout = layouts.batch([tokens[:length]], left=False)
    run(make_case(layout, head_size=16, dtype=HALF, tile_rows=128, device=DEVICE))


def test_a_chunk_with_a_static_cache_and_strided_tensors():
    case = make_case(two_prompts(True), query_start=23, spare_keys=7, head_size=16, device=DEVICE)
    strided = [
        tensor.transpose(1, 2).contiguous().transpose(1, 2)
        for tensor in (case.query, case.key, case.value)
    ]
    assert not strided[1].is_contiguous()
    run(dataclasses.replace(case, query=strided[0], key=strided[1], value=strided[2]))


@pytest.mark.parametrize("chosen", [[2], [3, 0], [1, 2, 7, 4, 6]])
def test_heads_that_are_not_listed_stay_as_they_are(chosen):
    case = make_case(
        two_prompts(True), patterns=ALL * 2, group=4, head_size=16, dtype=HALF, device=DEVICE
    )
    heads = torch.tensor(chosen, dtype=torch.int32, device=DEVICE)
    output = run_sparse(case, module.triton_prefill, heads)
    others = [head for head in range(8) if head not in chosen]
    assert output[:, others].isnan().all()
    expected, eager = case.expected[:, chosen], case.eager[:, chosen]
    part = dataclasses.replace(case, query=case.query[:, chosen], expected=expected, eager=eager)
    assert_close(part, output[:, chosen])


def test_no_heads_are_no_launch():
    case = make_case(layouts.regular(1, 20, 3), head_size=16, device=DEVICE)
    none = torch.empty(0, dtype=torch.int32, device=DEVICE)
    assert run_sparse(case, module.triton_prefill, none).isnan().all()


def test_prompts_without_text_or_images():
    image_alone = layouts.batch(
        [layouts.prompt(images=[33], texts=[0, 0], delimited=False)], left=False
    )
    sinks = SinkRule(leading=0)
    run(make_case(image_alone, head_size=16, dtype=HALF, sinks=sinks, device=DEVICE))
    text_alone = layouts.batch([layouts.prompt(images=[], texts=[40], delimited=False)], left=True)
    run(make_case(text_alone, head_size=16, dtype=HALF, device=DEVICE))


@given(layouts.layouts(2, 20), layouts.sink_rules(), layouts.dense_rules(), st.data())
@settings(
    max_examples=200 if ON_GPU else 4,
    phases=[Phase.generate],  # the interpreter is too slow to look for a smaller case
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_layout(layout, sinks, rule, data):
    start = data.draw(st.integers(0, layout.tokens - 1))
    case = make_case(
        layout, sinks=sinks, rule=rule, query_start=start, head_size=16, dtype=HALF, device=DEVICE
    )
    run(case)


@pytest.mark.gpu
@pytest.mark.parametrize("head_size", [64, 80, 96, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("windowed", [False, True])
def test_all_sizes_on_a_gpu(head_size, dtype, windowed):
    window = 150 if windowed else None
    for left in (False, True):
        for bidirectional in (False, True):
            rule = DenseRule(bidirectional, window, window_spares_own_image=left)
            one = layouts.prompt(images=[300, 1, 129], texts=[9, 2, 40, 200], delimited=True)
            two = layouts.prompt(images=[256] * 4, texts=[30, 8, 0, 3, 5], delimited=False, cut=70)
            layout = layouts.batch([one, two], left=left, extra=3)
            case = make_case(
                layout,
                patterns=ALL * 2,
                group=2,
                head_size=head_size,
                dtype=dtype,
                sinks=SinkRule(diagonal_block=64),
                rule=rule,
                query_start=150 if bidirectional else 0,
                tile_rows=128,
                spare_keys=11,
                device=DEVICE,
            )
            run(case)


@pytest.mark.parametrize("shared_kib", [48, 64, 99, 163, 227])
@pytest.mark.parametrize("block", [16, 64, 128, 256])
def test_blocks_fit_the_shared_memory_of_usual_devices(shared_kib, block):
    blocks = module.choose_blocks(block, torch.bfloat16, 128, shared_kib << 10)
    keys_and_values = 2 * blocks.keys * blocks.stages
    if blocks.stages > 1:
        assert (blocks.rows + keys_and_values) * block * 2 <= shared_kib << 10
