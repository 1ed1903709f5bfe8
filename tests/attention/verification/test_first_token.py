"""Time and memory to the first token, and what is said of them."""

import pytest
import torch
from tests.attention.tiny_models import tiny_model
from tests.attention.tiny_processor import TinyProcessor, tiny_prompt
from torch import nn

from photomask.attention.encoding import encode
from photomask.attention.verification.documents import FirstToken, Spread
from photomask.attention.verification.first_token import REPEATS, _LiveBytes, measure_first_token
from photomask.attention.verification.first_token_section import (
    first_token_facts,
    first_token_section,
)
from photomask.report import without_progress


def found(dense: tuple[float, float, float], sparse: tuple[float, float, float]) -> FirstToken:
    spreads = [Spread(p20=low, p50=middle, p80=high) for low, middle, high in (dense, sparse)]
    return FirstToken(
        tokens=100,
        repeats=5,
        dense_ms=spreads[0],
        sparse_ms=spreads[1],
        dense_bytes=2_000_000,
        sparse_bytes=1_000,
    )


def test_the_longest_prompt_is_measured():
    model = tiny_model("qwen2_5_vl")
    prompts = [encode(TinyProcessor("qwen2_5_vl"), tiny_prompt(*(9,) * n)) for n in (1, 3, 2)]
    measured = measure_first_token(model, model, prompts, without_progress)
    assert measured.tokens == prompts[1].tokens
    assert measured.repeats == REPEATS
    assert measured.dense_ms.p20 <= measured.dense_ms.p50 <= measured.dense_ms.p80
    assert measured.dense_bytes == measured.sparse_bytes > 0


def test_memory_is_what_lives_at_once():
    with _LiveBytes() as live:
        for _ in range(3):
            kept = torch.zeros(1000, dtype=torch.float32)
            kept.view(10, 100).add_(1)  # no new memory
            del kept
        both = [torch.zeros(1000), torch.ones(500)]
    assert live.most == 4 * 1500
    assert len(both) == 2


def test_weights_are_not_counted():
    layer = nn.Linear(1000, 10, bias=False)
    with torch.inference_mode(), _LiveBytes() as live:
        layer(torch.zeros(1, 1000))
    assert live.most == 4 * (1000 + 10)


@pytest.mark.parametrize(
    ("dense", "sparse", "words"),
    [
        ((9, 10, 11), (19, 20, 21), "SLOWER than dense, by 100 %"),
        ((19, 20, 21), (9, 10, 11), "2.00 times as fast as dense"),
        ((9, 10, 12), (11, 12, 13), "as fast as dense, within the spread"),
    ],
)
def test_the_verdict_says_which_model_is_slower(
    dense: tuple[float, float, float], sparse: tuple[float, float, float], words: str
):
    measured = found(dense, sparse)
    assert words in dict(first_token_facts(measured)).values()
    section = first_token_section(measured)
    assert words in section.text
    assert ("Serve this model dense" in section.text) is ("SLOWER" in words)
