"""The four patterns of an attention head, defined token by token.

This module is the definition. A schedule or a kernel is right if it agrees with `visible`.

The query rows of text (text proper and image delimiters) see, under every pattern, all that a dense
head sees. The query row of an image token sees these parts of what a dense head sees:

| pattern | earlier text | sinks before its image | own image |
|---|---|---|---|
| dense | all | all | all, and all other images |
| sink | all | all | its diagonal block |
| intra-image | all | only the image's own start delimiter | all |
| intra-image and sink | all | all | all |

Source: BlindSight, arXiv:2507.09071, for the categories. Where the paper does not define their
tokens, the definitions are ours.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema
from torch import Tensor

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.documents import Document
from photomask.errors import UsageError


class Pattern(enum.IntEnum):
    """What the image rows of a head see, the cheapest pattern first. Kernels use the numbers."""

    label: str
    """The name of the pattern in documents and tables."""
    mark: str
    """The character that stands for the pattern when a plan is printed."""

    SINK = 0, "sink", "s"
    INTRA_IMAGE = 1, "intra-image", "i"
    INTRA_IMAGE_SINK = 2, "intra-image+sink", "b"
    DENSE = 3, "dense", "#"

    def __new__(cls, code: int, label: str, mark: str) -> Self:
        """Makes a pattern whose value is its code."""
        pattern = int.__new__(cls, code)
        pattern._value_ = code
        pattern.label = label
        pattern.mark = mark
        return pattern

    def join(self, other: Pattern) -> Pattern:
        """Returns the cheapest pattern that sees everything that either of the two sees."""
        if self == other:
            return self
        return Pattern.DENSE if Pattern.DENSE in (self, other) else Pattern.INTRA_IMAGE_SINK


_BY_LABEL = {pattern.label: pattern for pattern in Pattern}


def _pattern(value: object) -> Pattern:
    """Returns the pattern with a label.

    Raises:
        ValueError: no pattern has this label.
    """
    if isinstance(value, Pattern):
        return value
    if isinstance(value, str) and value in _BY_LABEL:
        return _BY_LABEL[value]
    raise ValueError(f"{value!r} is not a pattern; expected one of {', '.join(_BY_LABEL)}")


LabelledPattern = Annotated[
    Pattern,
    BeforeValidator(_pattern),
    PlainSerializer(lambda pattern: pattern.label),
    WithJsonSchema({"type": "string", "enum": [*_BY_LABEL]}),
]
"""A pattern that is a `Pattern` in Python and its label in JSON."""


class SinkRule(Document):
    """The rule that says which tokens are sinks, and how much of its own image a sink head sees.

    Image delimiters are always sinks.

    Attributes:
        leading: how many tokens at the start of a prompt are sinks. Padding is not counted.
        per_image: how many tokens at the start of every image are sinks. This is useful for
            families without delimiters.
        diagonal_block: the length of a diagonal block in tokens. An image is divided into blocks of
            this length, beginning with its first token. An image row of a sink head sees its own
            block.
    """

    leading: Annotated[int, Field(ge=0)] = 4
    per_image: Annotated[int, Field(ge=0)] = 0
    diagonal_block: Annotated[int, Field(ge=1)] = 64


@dataclass(frozen=True)
class DenseRule:
    """The rule that says what a dense head of a layer sees. The model decides it, not a pattern.

    Attributes:
        bidirectional: whether the tokens of one image see each other in both directions (Gemma 3).
        window: the length of the sliding window in tokens, which includes the query itself; None
            if there is no window.
        window_spares_own_image: whether the tokens of one image see each other even beyond the
            window.
    """

    bidirectional: bool = False
    window: int | None = None
    window_spares_own_image: bool = False


def is_sink(layout: PromptLayout, sinks: SinkRule) -> Tensor:
    """Marks the sinks that are not text: bool [B, L]. Text is visible in every pattern anyway."""
    in_image = layout.kind == TokenKind.IMAGE
    delimiter = (layout.kind == TokenKind.START) | (layout.kind == TokenKind.END)
    chosen = layout.ordinal < sinks.leading
    if sinks.per_image:  # each operation costs a launch on a GPU, so do not launch it in vain
        chosen = chosen | (layout.offset < sinks.per_image)
    return delimiter | (in_image & chosen)


def visible(
    layout: PromptLayout,
    pattern: Pattern,
    sinks: SinkRule,
    rule: DenseRule,
    query_start: int = 0,
) -> Tensor:
    """Returns the mask of a pattern. This is its definition, and it takes O(L²) memory.

    Args:
        layout: the layout of all keys.
        pattern: the pattern of the head.
        sinks: the rule that says which tokens are sinks.
        rule: the rule that says what a dense head would see.
        query_start: the position of the first query among the keys.

    Returns:
        bool [B, L - query_start, L], true where the query (row) sees the key (column). The rows of
        padding see nothing.
    """
    allowed = _dense(layout, rule)
    if pattern is not Pattern.DENSE:
        allowed &= _kept(layout, pattern, sinks)
    return allowed[:, query_start:]


def _dense(layout: PromptLayout, rule: DenseRule) -> Tensor:
    """Returns the pairs that a dense head sees, bool [B, L, L]."""
    rows, keys = layout.positions[:, None], layout.positions[None, :]
    own = _own_image(layout)
    allowed = (keys <= rows).expand_as(own)
    if rule.bidirectional:
        allowed = allowed | own
    if rule.window is not None:
        near = rows - keys < rule.window
        allowed = allowed & ((near | own) if rule.window_spares_own_image else near)
    real = layout.kind != TokenKind.PADDING
    return allowed & real[:, :, None] & real[:, None, :]


def _kept(layout: PromptLayout, pattern: Pattern, sinks: SinkRule) -> Tensor:
    """Returns the pairs that a sparse pattern may keep, bool [B, L, L]."""
    kind, offset = layout.kind, layout.offset
    image_row = (kind == TokenKind.IMAGE)[:, :, None]
    kept = ~image_row | (kind == TokenKind.TEXT)[:, None, :]
    own = _own_image(layout)
    match pattern:
        case Pattern.SINK:
            block = offset.div(sinks.diagonal_block, rounding_mode="floor")
            own = own & (block[:, :, None] == block[:, None, :])
            sees_sinks = True
        case Pattern.INTRA_IMAGE:
            start = (kind == TokenKind.START)[:, None, :]
            own = own | (start & (layout.image[:, :, None] == layout.image[:, None, :]))
            sees_sinks = False
        case Pattern.INTRA_IMAGE_SINK:
            sees_sinks = True
        case _:
            raise UsageError(f"what {pattern.label!r} keeps of the dense pairs is not defined")
    if sees_sinks:
        before_image = layout.positions[None, None, :] < layout.first[:, :, None]
        kept = kept | (is_sink(layout, sinks)[:, None, :] & before_image)
    return kept | own


def _own_image(layout: PromptLayout) -> Tensor:
    """Marks the pairs of tokens of the same image, without delimiters: bool [B, L, L]."""
    inside = layout.kind == TokenKind.IMAGE
    same = layout.image[:, :, None] == layout.image[:, None, :]
    return same & inside[:, :, None] & inside[:, None, :]
