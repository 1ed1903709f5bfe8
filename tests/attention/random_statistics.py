"""Statistics without a model."""

from __future__ import annotations

import torch

from photomask.attention.identity import ModelIdentity
from photomask.attention.patterns import SinkRule
from photomask.attention.statistics import AttentionStatistics, PromptRecord


def identity(layers: int = 3, heads: int = 4, kv_heads: int = 2) -> ModelIdentity:
    """A model that does not exist."""
    return ModelIdentity(
        model_type="qwen2_5_vl",
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=16,
        hidden_size=64,
        vocabulary=300,
        fingerprint="0" * 64,
    )


def random_statistics(
    prompts: int = 5, layers: int = 3, heads: int = 4, kv_heads: int = 2, seed: int = 0
) -> AttentionStatistics:
    """Random numbers of the right shapes, some errors exactly zero."""
    random = torch.Generator().manual_seed(seed)
    shape = (prompts, layers, heads)
    kept = torch.rand(*shape, 3, generator=random).sort(-1).values
    mass = torch.rand(*shape, 4, generator=random)
    error = torch.rand(*shape, 3, generator=random) ** 4
    error *= torch.rand(1, layers, heads, 3, generator=random) < 0.8
    # Every pattern costs more pairs than the one before it.
    pairs = torch.randint(100, 1000, (prompts, layers, 4), generator=random).cumsum(-1)
    records = tuple(
        PromptRecord(
            index=2 * number,
            digest=f"{number:064x}",
            task=("compare", "count")[number % 2],
            images=2 + number,
            tokens=100 + number,
            rows=50,
            probed=number % 2 == 0,
        )
        for number in range(prompts)
    )
    return AttentionStatistics(
        model=identity(layers, heads, kv_heads),
        sinks=SinkRule(leading=2),
        prompts=records,
        skipped=1,
        mass=mass / mass.sum(-1, keepdim=True),
        recall=kept,
        tail_recall=kept / 2,
        error=error * 2,
        norm=torch.rand(shape, generator=random) + 1,
        projected_error=error,
        projected_norm=torch.rand(shape, generator=random) + 1,
        layer_norm=torch.rand(shape[:2], generator=random) + heads,
        change=torch.rand(shape[:2], generator=random) * (torch.arange(prompts) % 2 == 0)[:, None],
        pairs=pairs,
    )
