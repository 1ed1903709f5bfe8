"""Layers, prompts and plans that are measured; the tensors are random, the layouts are not."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, Pattern, SinkRule
from photomask.attention.visible_pairs import visible_pairs

TEXT = 40
FIRST_TEXT = 32
LAST_TEXT = 256
"""Text tokens between images, before the first and, at least, behind the last."""
SPARSE_SHARES = {Pattern.SINK: 5, Pattern.INTRA_IMAGE: 6, Pattern.INTRA_IMAGE_SINK: 8}
"""In what proportions the heads that are not dense have each pattern."""
MEASURED_PERCENT = 30
_D = Pattern.DENSE
_S = Pattern.SINK
_I = Pattern.INTRA_IMAGE
_B = Pattern.INTRA_IMAGE_SINK
MEASURED = (
    *(_D, _S, _B, _D, _I, _B, _D),
    *(_S, _B, _I, _D, _B, _I, _D),
    *(_S, _B, _I, _D, _B, _D, _S),
    *(_I, _B, _D, _S, _I, _B, _D),
)
"""The measured setting: 28 heads in groups of 7 that share keys; 9 of them, about 30 %, dense."""


@dataclass(frozen=True)
class Shape:
    """Heads of one layer of a model.

    Attributes:
        name: of the model.
        heads: of the queries.
        key_heads: of keys and values.
        head_size: channels of a head.
        rule: what a dense head sees.
    """

    name: str
    heads: int
    key_heads: int
    head_size: int
    rule: DenseRule

    @property
    def scale(self) -> float:
        """Factor of the scores."""
        return self.head_size**-0.5

    @property
    def note(self) -> str:
        """The shape in a few words."""
        return f"{self.heads}/{self.key_heads} heads of {self.head_size}, bfloat16, batch 1"


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("Qwen2.5-VL-7B", 28, 4, 128, DenseRule()),
        Shape("Gemma-3-12B", 16, 8, 256, DenseRule(bidirectional=True)),
    )
}


@dataclass(frozen=True)
class Layer:
    """Tensors of one layer: query [1, H, L, D], key and value [1, G, L, D]."""

    shape: Shape
    query: Tensor
    key: Tensor
    value: Tensor

    @property
    def tokens(self) -> int:
        """Length of the prompt."""
        return self.query.shape[2]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.query.device

    @property
    def causal_pairs(self) -> int:
        """Pairs of a query and a key that all heads see if they are causal and dense."""
        return self.shape.heads * self.tokens * (self.tokens + 1) // 2


@dataclass(frozen=True)
class Prompt:
    """A prompt of images of one size, and who may see what of it."""

    image_tokens: int
    layout: PromptLayout
    sinks: SinkRule
    rule: DenseRule

    def pairs(self, patterns: Sequence[Pattern]) -> int:
        """Counts the pairs that heads with these patterns see together."""
        counts = {
            pattern: int(visible_pairs(self.layout, pattern, self.sinks, self.rule))
            for pattern in set(patterns)
        }
        return sum(counts[pattern] for pattern in patterns)


@dataclass(frozen=True)
class Plan:
    """The patterns of all heads of a layer."""

    percent: int
    patterns: tuple[Pattern, ...]

    @property
    def name(self) -> str:
        """How rows call it."""
        return f"{self.percent} % dense"


def make_layer(shape: Shape, tokens: int, device: str) -> Layer:
    """Draws a layer, the same every time on a device."""
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, tokens, shape.head_size, device=device, dtype=torch.bfloat16)
        for heads in (shape.heads, shape.key_heads, shape.key_heads)
    )
    return Layer(shape, query, key, value)


def make_prompt(shape: Shape, tokens: int, image_tokens: int, device: str) -> Prompt:
    """Lays out a prompt of as many images as fit, text between them."""
    kinds, images = [TokenKind.TEXT] * FIRST_TEXT, [-1] * FIRST_TEXT
    number = 0
    while len(kinds) + image_tokens + 2 + TEXT < tokens - LAST_TEXT:
        kinds += [TokenKind.START, *[TokenKind.IMAGE] * image_tokens, TokenKind.END]
        images += [number] * (image_tokens + 2)
        kinds += [TokenKind.TEXT] * TEXT
        images += [-1] * TEXT
        number += 1
    kinds += [TokenKind.TEXT] * (tokens - len(kinds))
    images += [-1] * (tokens - len(images))
    layout = PromptLayout.of(
        torch.tensor([kinds], device=device), torch.tensor([images], device=device)
    )
    return Prompt(image_tokens, layout, SinkRule(), shape.rule)


def make_plan(shape: Shape, percent: int) -> Plan:
    """Returns the plan with a share of dense heads, spread over the heads the same way always."""
    if percent == MEASURED_PERCENT and shape.heads == len(MEASURED):
        return Plan(percent, MEASURED)
    dense = round(shape.heads * percent / 100)
    patterns = [Pattern.DENSE] * dense
    for pattern, count in split(shape.heads - dense).items():
        patterns += [pattern] * count
    order = torch.randperm(shape.heads, generator=torch.Generator().manual_seed(0))
    return Plan(percent, tuple(patterns[place] for place in order))


def split(heads: int) -> dict[Pattern, int]:
    """Splits sparse heads among the patterns by the method of the largest remainder."""
    total = sum(SPARSE_SHARES.values())
    counts = {pattern: heads * share // total for pattern, share in SPARSE_SHARES.items()}
    left = {pattern: heads * share % total for pattern, share in SPARSE_SHARES.items()}
    most = sorted(left, key=lambda pattern: left[pattern], reverse=True)
    for pattern in most[: heads - sum(counts.values())]:
        counts[pattern] += 1
    return counts
