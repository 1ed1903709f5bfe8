"""The PyTorch executor equals the reference, and reads nothing that no row sees."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attention import layouts
from tests.attention.kernels.cases import ALL, Case, assert_close, make_case
from torch import Tensor

from photomask.attention.kernels import reference_attention
from photomask.attention.kernels.torch_prefill import torch_prefill
from photomask.attention.patterns import DenseRule, Pattern, SinkRule
from photomask.attention.schedule import build_schedule

RULES = [
    DenseRule(),
    DenseRule(bidirectional=True),
    DenseRule(window=40),
    DenseRule(window=40, window_spares_own_image=True, bidirectional=True),
]


def run(case: Case) -> Tensor:
    query, key, value, schedule, heads, scale = case.arguments
    return torch_prefill(query, key, value, schedule, heads.patterns, scale)


@given(layouts.layouts(), layouts.sink_rules(), layouts.dense_rules(), st.data())
@settings(max_examples=60)
def test_any_layout_equals_the_reference(layout, sinks, rule, data):
    start = data.draw(st.integers(0, layout.tokens - 1))
    schedule = build_schedule(layout, sinks, rule, start, tile_rows=16)
    query = torch.randn(layout.batch, 4, layout.tokens - start, 8, dtype=torch.float64)
    key, value = torch.randn(2, layout.batch, 2, layout.tokens, 8, dtype=torch.float64)
    output = torch_prefill(query, key, value, schedule, ALL, 0.3)
    expected = reference_attention(query, key, value, layout, ALL, sinks, rule, 0.3)
    assert torch.allclose(output, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", RULES)
def test_padded_batches_in_every_precision(dtype, rule):
    prompts = [
        layouts.prompt(images=[70, 33, 5], texts=[9, 0, 8, 3], delimited=True),
        layouts.prompt(images=[150], texts=[4, 11], delimited=True, cut=30),
    ]
    for left in (True, False):
        layout = layouts.batch(prompts, left=left, extra=2)
        case = make_case(layout, dtype=dtype, rule=rule, group=2)
        assert_close(case, run(case))


@pytest.mark.parametrize("length", [1, 63, 100, 1000])
def test_odd_lengths(length):
    tokens = layouts.prompt(images=[49] * 16, texts=[30] + [9] * 16, delimited=True)
    layout = layouts.batch([tokens[:length]], left=False)
    case = make_case(layout, head_size=32, tile_rows=128)
    assert_close(case, run(case))


def test_keys_of_a_static_cache_behind_the_prompt_are_not_read():
    case = make_case(layouts.regular(3, 40, 5), query_start=37, spare_keys=9)
    assert_close(case, run(case))


def test_every_combination_of_patterns_gives_the_same_heads():
    layout = layouts.regular(3, 40, 5)
    case = make_case(layout, patterns=ALL)
    for head, pattern in enumerate(ALL):
        schedule = build_schedule(layout, SinkRule(), DenseRule())
        alone = torch_prefill(
            case.query[:, head : head + 1],
            case.key[:, head : head + 1],
            case.value[:, head : head + 1],
            schedule,
            [pattern],
            case.scale,
        )
        together = torch_prefill(case.query, case.key, case.value, schedule, ALL, case.scale)
        assert torch.allclose(alone[:, 0], together[:, head], atol=1e-6)


def test_long_prompts_need_memory_for_tokens_not_pairs(monkeypatch):
    made = []
    real = torch.nn.functional.scaled_dot_product_attention

    def counted(*args, attn_mask=None, **options):
        made.append(0 if attn_mask is None else attn_mask.numel())
        return real(*args, attn_mask=attn_mask, **options)

    name = "photomask.attention.kernels.torch_prefill.scaled_dot_product_attention"
    monkeypatch.setattr(name, counted)
    case = make_case(layouts.regular(60, 49, 7), patterns=[Pattern.INTRA_IMAGE], head_size=8)
    run(case)
    assert sum(made) < case.schedule.keys**2 / 4
