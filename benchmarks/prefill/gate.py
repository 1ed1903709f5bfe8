"""Sampled rows of every head beside attention in float32 with the mask written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import Pattern, is_sink
from prefill.setting import Layer, Prompt

LARGEST_ERROR = 1e-2
"""Above it the mask is wrong; rounding to bfloat16 alone costs 2e-3 to 4e-3."""
IMAGE_ROWS, OTHER_ROWS = 48, 16
"""How many rows are compared."""


@dataclass(frozen=True)
class Gate:
    """Some rows of a layer, and what heads of each pattern see from them.

    Attributes:
        layer: whose output is compared.
        rows: int64 [R], positions.
        masks: bool [R, L] for each pattern.
    """

    layer: Layer
    rows: Tensor
    masks: Mapping[Pattern, Tensor]

    @classmethod
    def of(cls, layer: Layer, prompt: Prompt) -> Gate:
        """Compares with what patterns mean."""
        rows = sample_rows(prompt.layout)
        return cls(layer, rows, {each: rows_of_mask(prompt, each, rows) for each in Pattern})

    @classmethod
    def causal(cls, layer: Layer, prompt: Prompt) -> Gate:
        """Compares the same rows with causal attention, which is all that dense kernels know."""
        rows = sample_rows(prompt.layout)
        return cls(layer, rows, {Pattern.DENSE: prompt.layout.positions <= rows[:, None]})

    def error(
        self, output: Tensor, patterns: Sequence[Pattern], heads: Sequence[int] | None = None
    ) -> float:
        """Returns the relative error of the worst head.

        That of a head is the root mean square, over the rows, of |output - expected| / |expected|.
        A NaN anywhere gives NaN.

        Args:
            output: [1, H, L, D].
            patterns: of the H heads.
            heads: which are compared; None for all.
        """
        if not bool(output.sum(dtype=torch.float32).isfinite()):
            return float("nan")
        expected = self._expected(patterns)
        found = output[0, :, self.rows].float()
        errors = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
        worst = errors.square().mean(1).sqrt()
        return float((worst if heads is None else worst[list(heads)]).max())

    def _expected(self, patterns: Sequence[Pattern]) -> Tensor:
        """Computes float32 [H, R, D], the heads that share keys at a time."""
        layer, group = self.layer, len(patterns) // self.layer.key.shape[1]
        found = []
        for owner in range(layer.key.shape[1]):
            heads = range(owner * group, (owner + 1) * group)
            query = layer.query[0, heads.start : heads.stop, self.rows].float()
            scores = query @ layer.key[0, owner].float().T
            scores *= layer.shape.scale
            for scored, head in zip(scores, heads, strict=True):
                scored.masked_fill_(~self.masks[patterns[head]], -torch.inf)
            found.append(scores.softmax(-1) @ layer.value[0, owner].float())
        return torch.cat(found)


def sample_rows(layout: PromptLayout) -> Tensor:
    """Draws rows of images and rows of text, the same every time: int64 [R]."""
    generator = torch.Generator().manual_seed(0)
    in_image = (layout.kind[0] == TokenKind.IMAGE).cpu()
    drawn = []
    for places, count in ((in_image, IMAGE_ROWS), (~in_image, OTHER_ROWS)):
        rows = places.nonzero()[:, 0]
        if len(rows):
            drawn.append(rows[torch.randint(len(rows), (count,), generator=generator)])
    return torch.cat(drawn).to(layout.device)


def rows_of_mask(prompt: Prompt, pattern: Pattern, rows: Tensor) -> Tensor:
    """Writes out some rows of what `visible` defines, for rules without a window: bool [R, L]."""
    layout, keys = prompt.layout, prompt.layout.positions
    kind = layout.kind[0]
    image = layout.image[0]
    offset = layout.offset[0]
    in_image = kind == TokenKind.IMAGE
    own = (image[rows, None] == image) & in_image & in_image[rows, None]
    allowed = keys <= rows[:, None]
    if prompt.rule.bidirectional:
        allowed = allowed | own
    if pattern is Pattern.DENSE:
        return allowed
    kept = (kind == TokenKind.TEXT) | ~in_image[rows, None]
    if pattern is Pattern.SINK:
        block = prompt.sinks.diagonal_block
        kept = kept | (own & (offset[rows, None] // block == offset // block))
    else:
        kept = kept | own
    if pattern is Pattern.INTRA_IMAGE:
        kept = kept | ((kind == TokenKind.START) & (image[rows, None] == image))
    else:
        before = keys < layout.first[0, rows, None]
        kept = kept | (is_sink(layout, prompt.sinks)[0] & before)
    return allowed & kept


def run_poisoned(call: Callable[[], Tensor], like: Tensor) -> Tensor:
    """Calls with NaN in the memory that an output of this size is likely to get."""
    poison = torch.full_like(like, torch.nan)
    del poison
    return call()
