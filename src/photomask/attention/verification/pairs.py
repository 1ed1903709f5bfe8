"""Which share of the query-key pairs a plan computes: by image, by layer and by pattern."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from photomask.attention.head_plan import HeadPlan
from photomask.attention.layout import TokenKind
from photomask.attention.patterns import DenseRule, Pattern
from photomask.attention.plugin import AttentionCall
from photomask.attention.verification.documents import PairCount
from photomask.attention.visible_pairs import visible_pairs_by_query


class PairTable:
    """Counts visible pairs over all prompts that run, by the place of the image in its prompt.

    Rows of text, and of the delimiters of images, are dense under every pattern; they are counted
    apart from the rows of images.

    Args:
        plan: whose heads are counted.
    """

    def __init__(self, plan: HeadPlan):
        self._plan = plan
        self._of_rule: dict[DenseRule, tuple[AttentionCall, Tensor]] = {}
        self._pairs: dict[int, Tensor] = {}
        """By layer: int64 [patterns, 1 + images], rows of text first."""
        self._prompts: list[int] = []
        """How many prompts have a first image, a second one, and so on."""

    def add(self, layer: int, call: AttentionCall) -> None:
        """Counts one layer's pairs of a prompt."""
        if layer == min(self._pairs, default=layer):
            self._prompts = _added(self._prompts, call.layout.image_counts)
        found = self._counted(call)
        self._pairs[layer] = _sum(self._pairs.get(layer, torch.zeros_like(found)), found)

    def _counted(self, call: AttentionCall) -> Tensor:
        """Counts once for all layers that share a call."""
        last, found = self._of_rule.get(call.rule, (None, None))
        if found is None or last is not call:
            layout, start = call.layout, call.query_start
            is_image = layout.kind[:, start:] == TokenKind.IMAGE
            place = torch.where(is_image, layout.image[:, start:] + 1, 0).to(torch.int64).flatten()
            size = max(layout.image_counts) + 1
            rows = [
                visible_pairs_by_query(layout, pattern, self._plan.sinks, call.rule, start)
                for pattern in Pattern
            ]
            empty = torch.zeros(size, dtype=torch.int64, device=layout.device)
            found = torch.stack([empty.scatter_add(0, place, row.flatten()) for row in rows]).cpu()
            self._of_rule[call.rule] = (call, found)
        return found

    def by_image(self) -> tuple[PairCount, ...]:
        """Returns a count for each place of an image in its prompt, the first one first."""
        images = range(1, len(self._prompts) + 1)
        return tuple(
            self._count(self._prompts[image - 1], lambda pairs, image=image: pairs[:, image])
            for image in images
        )

    def _count(self, prompts: int, chosen: Callable[[Tensor], Tensor]) -> PairCount:
        """Adds up some of the rows over all layers and heads.

        Args:
            prompts: that have such rows.
            chosen: from pairs [patterns, 1 + images] to pairs [patterns].
        """
        visible, causal = 0, 0
        for layer, pairs in self._pairs.items():
            seen = chosen(_sum(pairs, torch.zeros(1, len(self._prompts) + 1, dtype=torch.int64)))
            patterns = self._plan.patterns[layer]
            visible += int(seen[list(patterns)].sum())
            causal += int(seen[Pattern.DENSE]) * len(patterns)
        return PairCount(prompts=prompts, visible=visible, causal=causal)

    def by_layer(self) -> tuple[PairCount, ...]:
        """Returns a count for each layer, rows of text included; none without images."""
        prompts = max(self._prompts, default=0)
        return tuple(
            PairCount(
                prompts=prompts,
                visible=int(pairs.sum(1)[list(self._plan.patterns[layer])].sum()),
                causal=int(pairs[Pattern.DENSE].sum()) * len(self._plan.patterns[layer]),
            )
            for layer, pairs in sorted(self._pairs.items())
        )

    def by_pattern(self) -> tuple[PairCount, ...]:
        """Returns, for each pattern, the pairs of heads that have it, rows of images alone."""
        rows = [pairs[:, 1:].sum(1) for pairs in self._pairs.values()]
        return tuple(
            PairCount(
                prompts=max(self._prompts, default=0),
                visible=sum(int(row[pattern]) for row in rows),
                causal=sum(int(row[Pattern.DENSE]) for row in rows),
            )
            for pattern in Pattern
        )


def _added(prompts: list[int], images: list[int]) -> list[int]:
    """Counts more prompts by how many images they have."""
    size = max(len(prompts), *images)
    return [
        (prompts[place] if place < len(prompts) else 0) + sum(count > place for count in images)
        for place in range(size)
    ]


def _sum(first: Tensor, second: Tensor) -> Tensor:
    """Adds counts of prompts that may have different numbers of images."""
    size = max(first.shape[1], second.shape[1])
    return pad(first, (0, size - first.shape[1])) + pad(second, (0, size - second.shape[1]))
