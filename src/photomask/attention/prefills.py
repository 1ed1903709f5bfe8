"""What the last prefill of a converted model computed, and by what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from photomask.attention.conversion import PlanHandler
from photomask.attention.head_plan import HeadPlan
from photomask.attention.layout import TokenKind
from photomask.attention.patterns import Pattern
from photomask.attention.plugin import AttentionCall, LastForward, last_forward
from photomask.attention.visible_pairs import visible_pairs
from photomask.errors import UsageError
from photomask.report import Shown, Table


@dataclass(frozen=True)
class PrefilledPrompt:
    """What a prefill computed for one prompt.

    Attributes:
        tokens: the number of tokens, without padding, that the cache then held.
        images: the number of images among them.
        visible: the pairs of query and key that were computed, over all layers and heads.
        causal: the pairs that the dense model would have computed.
    """

    tokens: int
    images: int
    visible: int
    causal: int

    @property
    def density(self) -> float:
        """The visible pairs over the causal pairs, between 0 and 1; 1 is dense."""
        return self.visible / self.causal


@dataclass(frozen=True)
class Prefill(Shown):
    """What the last prefill with images computed. `print(prefill)` shows it as a table.

    Attributes:
        prompts: what it computed for each prompt of the batch.
        sparse_layers: the number of layers with a sparse head.
        sparse_heads: the number of sparse heads of all layers.
        kernels: the number of layers that each function computed, whole or in part. `sdpa` is the
            model's own attention, and the other names are those of functions in
            `photomask.attention.kernels`.
    """

    prompts: tuple[PrefilledPrompt, ...]
    sparse_layers: int
    sparse_heads: int
    kernels: Mapping[str, int]

    @property
    def density(self) -> float:
        """The visible pairs over the causal pairs, summed over all prompts; 1 is dense."""
        visible = sum(prompt.visible for prompt in self.prompts)
        return visible / sum(prompt.causal for prompt in self.prompts)

    def shown(self) -> Table:
        """Returns the prefill as a table with a row for each prompt."""
        kernels = ", ".join(f"{name} ({layers} layers)" for name, layers in self.kernels.items())
        title = (
            f"prefill of density {self.density:.3f}, {self.sparse_heads} sparse heads in "
            f"{self.sparse_layers} layers"
        )
        rows = [("prompt", "tokens", "images", "density")]
        for number, prompt in enumerate(self.prompts):
            sizes = str(prompt.tokens), str(prompt.images)
            rows.append((str(number), *sizes, f"{prompt.density:.3f}"))
        return Table(title, rows, [f"computed by {kernels}"])


def last_prefill(model: Any) -> Prefill | None:
    """Returns what the last prefill with images computed, and which kernels ran.

    That is the last forward that had tokens of images. If a prompt arrives in chunks, it is the
    last chunk with tokens of images. The pairs are counted when this function is called, so the
    forward itself does not wait for it.

    Args:
        model: a model that `convert` returned; it may be compiled by torch.compile.

    Returns:
        The prefill; None before the first one with images.

    Raises:
        UsageError: the model was never converted.
    """
    handler, last = last_forward(model)
    if not isinstance(handler, PlanHandler):
        raise UsageError(
            f"this model runs a {type(handler).__name__}, which has no plan; expected a model that "
            "photomask.attention.convert returned"
        )
    return _summary(handler.plan, last) if last.calls else None


def _summary(plan: HeadPlan, last: LastForward) -> Prefill:
    """Returns what the layers of a forward computed."""
    visible, causal = count_pairs(plan, last.calls)
    call = last.calls[min(last.calls)]
    layout = call.layout
    ends = (layout.kind[:, -1] != TokenKind.PADDING).to(torch.int32)
    tokens = (layout.ordinal[:, -1] + ends).tolist()
    sparse = [sum(head is not Pattern.DENSE for head in row) for row in plan.patterns]
    counts = Counter(name for names in last.kernels.values() for name in set(names))
    return Prefill(
        prompts=tuple(
            map(PrefilledPrompt, tokens, layout.image_counts, visible.tolist(), causal.tolist())
        ),
        sparse_layers=sum(heads > 0 for heads in sparse),
        sparse_heads=sum(sparse),
        kernels=dict(sorted(counts.items())),
    )


def count_pairs(plan: HeadPlan, calls: Mapping[int, AttentionCall]) -> tuple[Tensor, Tensor]:
    """Returns the pairs that the heads of a plan saw, and those that dense heads would have seen.

    Args:
        plan: the plan.
        calls: the call of each layer.

    Returns:
        int64 [B] each, summed over all layers and heads.
    """
    seen: dict[int, Sequence[Tensor]] = {}
    visible = causal = torch.zeros(1, dtype=torch.int64)
    for layer, call in calls.items():
        if id(call) not in seen:  # layers with one kind of mask share a call
            arguments = (plan.sinks, call.rule, call.query_start)
            seen[id(call)] = [
                visible_pairs(call.layout, pattern, *arguments).cpu() for pattern in Pattern
            ]
        pairs = dict(zip(Pattern, seen[id(call)], strict=True))
        row = plan.patterns[layer]
        visible = visible + torch.stack([pairs[pattern] for pattern in row]).sum(0)
        causal = causal + pairs[Pattern.DENSE] * len(row)
    return visible, causal
