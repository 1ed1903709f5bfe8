"""vLLM's FlashAttention as a dense kernel: the last query sees the last key, on strided heads."""

from __future__ import annotations

import pytest
import torch
from tests.attention.vllm.stand_in import flash_attn_varlen_func

from photomask.attention.vllm.dense_flash import ServerFlash

SCALE = 0.3


@pytest.mark.parametrize("queries", [1, 5, 11])
@pytest.mark.parametrize(("heads", "keys"), [(slice(0, 4, 2), slice(0, 2)), (slice(2, 4), [1])])
def test_some_heads_of_a_chunk_are_written_in_place(
    queries: int, heads: slice, keys: slice | list[int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    # As in a batch of vLLM: tokens first, then heads.
    query = torch.randn(queries, 4, 8, generator=generator).transpose(0, 1)[None]
    key, value = (
        torch.randn(11, 2, 8, generator=generator).transpose(0, 1)[None] for _ in range(2)
    )
    output, log_sums = torch.full_like(query, torch.nan), torch.empty(1, 2, queries)
    kernel = ServerFlash(flash_attn_varlen_func, 3)
    part = (query[:, heads], key[:, keys], value[:, keys])
    found = kernel(*part, SCALE, output[:, heads], log_sums)
    owners = [head // 2 for head in range(4)][heads]
    seen = torch.ones(queries, 11).tril(11 - queries) > 0
    scores = SCALE * query[:, heads].double() @ key[:, owners].double().transpose(2, 3)
    scores = scores.masked_fill(~seen, -torch.inf)
    expected = scores.softmax(-1) @ value[:, owners].double()
    assert torch.allclose(found.double(), expected, atol=1e-6)
    assert torch.allclose(log_sums.double(), scores.logsumexp(-1), atol=1e-6)
    assert torch.equal(output[:, heads], found)
    assert int(output.isnan().sum()) == 2 * queries * 8
    assert torch.equal(kernel(*part, SCALE), found)
