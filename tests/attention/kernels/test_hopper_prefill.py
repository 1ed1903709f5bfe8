"""The Hopper kernel equals the reference on a Hopper GPU, and compiles for one everywhere."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.attention import layouts
from tests.attention.kernels.cases import ALL, Case, assert_close, make_case, run_sparse

from photomask.attention.kernels.dispatch import choose_sparse_kernel
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, SinkRule

pytest.importorskip("triton")
ON_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
pytestmark = [pytest.mark.gpu] if ON_HOPPER else []
needs_hopper = pytest.mark.skipif(not ON_HOPPER, reason="needs a Hopper GPU")
RULES = [DenseRule(), DenseRule(bidirectional=True)]


def run(case: Case, heads: torch.Tensor | None = None) -> torch.Tensor:
    """Runs the kernel, if it is the one that would be chosen."""
    from photomask.attention.kernels.hopper import hopper_prefill

    chosen = choose_sparse_kernel(case.query, case.key, case.value, case.schedule)
    assert chosen is hopper_prefill
    return run_sparse(case, hopper_prefill, heads)


def prompt(
    images: list[int], texts: list[int], *, delimited: bool = True, cut: int = 0
) -> PromptLayout:
    tokens = layouts.prompt(images=images, texts=texts, delimited=delimited, cut=cut)
    return layouts.batch([tokens], left=False)


def make(layout: PromptLayout, **settings: object) -> Case:
    usual = {"tile_rows": 128, "dtype": torch.bfloat16, "head_size": 128, "device": "cuda"}
    return make_case(layout, **{**usual, **settings})  # type: ignore[arg-type]


@needs_hopper
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_size", [64, 128, 256])
@pytest.mark.parametrize("images", [[300, 128, 5], [1], [1296], [64, 63, 65, 129]])
def test_every_head_size_rule_and_image(images, head_size, dtype, rule):
    layout = prompt(images, [70, 3, 0, 260, 9][: len(images) + 1])
    case = make(layout, head_size=head_size, dtype=dtype, rule=rule, patterns=ALL * 2, group=4)
    assert_close(case, run(case))


@needs_hopper
@pytest.mark.parametrize("length", [1, 2, 64, 65, 127, 128, 129, 400])
def test_odd_lengths(length):
    case = make(prompt([149, 160], [5, 2, 300], cut=620 - length))
    assert case.schedule.keys == length
    assert_close(case, run(case))


@needs_hopper
@pytest.mark.parametrize("delimited", [True, False])
def test_two_prompts_of_different_images(delimited):
    one = layouts.prompt(images=[300, 100], texts=[40, 13, 200], delimited=delimited)
    two = layouts.prompt(images=[30], texts=[500, 500], delimited=delimited)[: len(one)]
    layout = layouts.batch([one, two], left=False)
    assert not bool((layout.kind == TokenKind.PADDING).any())
    assert_close(case := make(layout, patterns=ALL * 7, group=7), run(case))


@needs_hopper
def test_a_chunk_with_a_static_cache_and_strided_tensors():
    layout = prompt([300, 270], [40, 13, 150])
    case = make(layout, query_start=411, spare_keys=77)
    strided = [
        tensor.transpose(1, 2).contiguous().transpose(1, 2)
        for tensor in (case.query, case.key, case.value)
    ]
    case = dataclasses.replace(case, query=strided[0], key=strided[1], value=strided[2])
    assert_close(case, run(case))


@needs_hopper
@pytest.mark.parametrize("chosen", [[2], [3, 0], [1, 2, 7, 4, 6]])
def test_heads_that_are_not_listed_stay_as_they_are(chosen):
    layout = prompt([200, 333], [9, 40, 50])
    case = make(layout, patterns=ALL * 2, group=4)
    output = run(case, torch.tensor(chosen, dtype=torch.int32, device="cuda"))
    others = [head for head in range(8) if head not in chosen]
    assert output[:, others].isnan().all()
    output[:, others] = case.expected[:, others].to(output)
    assert_close(case, output)


@needs_hopper
def test_many_tiles_are_shared_out_and_none_is_forgotten():
    layout = layouts.regular(70, 33, 9)
    case = make(layout, patterns=ALL * 2, group=4, sinks=SinkRule())
    for _ in range(3):
        assert_close(case, run(case))


@needs_hopper
@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    images=st.lists(st.integers(1, 300), min_size=0, max_size=4),
    texts=st.lists(st.integers(0, 200), min_size=5, max_size=5),
    delimited=st.booleans(),
    block=st.integers(1, 150),
    bidirectional=st.booleans(),
)
def test_any_prompt(images, texts, delimited, block, bidirectional):
    layout = prompt(images, [texts[0] + 1, *texts[1 : len(images) + 1]], delimited=delimited)
    sinks = SinkRule(leading=3, per_image=1, diagonal_block=block)
    case = make(layout, sinks=sinks, rule=DenseRule(bidirectional=bidirectional))
    assert_close(case, run(case))


@needs_hopper
@pytest.mark.parametrize(
    "change",
    [
        {"dtype": torch.float32},
        {"head_size": 80},
        {"rule": DenseRule(window=20)},
        {"tile_rows": 32},
    ],
)
def test_the_kernel_for_all_gpus_takes_what_this_one_does_not(change):
    from photomask.attention.kernels.triton_prefill import triton_prefill

    case = make(layouts.regular(2, 140, 9), **change)
    kernel = choose_sparse_kernel(case.query, case.key, case.value, case.schedule)
    assert kernel is triton_prefill


@needs_hopper
def test_padding_goes_to_the_kernel_that_never_reads_it():
    from photomask.attention.kernels.triton_prefill import triton_prefill

    prompts = [layouts.prompt(images=[size], texts=[5, 9], delimited=True) for size in (50, 20)]
    case = make(layouts.batch(prompts, left=False))
    kernel = choose_sparse_kernel(case.query, case.key, case.value, case.schedule)
    assert kernel is triton_prefill


@pytest.mark.parametrize("head_size", [64, 128, 256])
def test_it_compiles_for_hopper_without_a_gpu(head_size):
    """Triton's interpreter, which the other tests set, knows no Gluon: hence another process."""
    script = Path(__file__).with_name("compile_for_hopper.py")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script), str(head_size)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shared_bytes, matrix_products = map(int, done.stdout.split())
    assert shared_bytes <= 232_448  # what a program may have on a Hopper GPU
    assert matrix_products > 0
