"""What an attention head may see: the four patterns, defined token by token.

Everything here is semantics. A schedule and a kernel are right when they equal `visible`.

The query rows of text (text proper and image delimiters) see every earlier token under every
pattern. The query row of an image token sees, of what a dense head would see:

| pattern | earlier text | sinks before its image | own image |
|---|---|---|---|
| dense | all | all | all, and all other images |
| sink | all | all | its diagonal block |
| intra-image | all | only the image's own start delimiter | all |
| intra-image and sink | all | all | all |

Source: BlindSight, arXiv:2507.09071, names the categories; where it leaves their tokens open, the
definitions are ours.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field
from torch import Tensor

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.documents import Document
from photomask.errors import UsageError


class Pattern(enum.IntEnum):
    """What the image rows of a head see, cheapest first; the number is the kernel's code."""

    label: str
    """The name in documents and tables."""
    mark: str
    """The one character that stands for it in the drawing of a plan."""

    SINK = 0, "sink", "s"
    INTRA_IMAGE = 1, "intra-image", "i"
    INTRA_IMAGE_SINK = 2, "intra-image+sink", "b"
    DENSE = 3, "dense", "#"

    def __new__(cls, code: int, label: str, mark: str) -> Self:
        """Makes a pattern that is the number of its code."""
        pattern = int.__new__(cls, code)
        pattern._value_ = code
        pattern.label = label
        pattern.mark = mark
        return pattern

    def join(self, other: Pattern) -> Pattern:
        """Returns the cheapest pattern that sees all that either of the two sees."""
        if self == other:
            return self
        return Pattern.DENSE if Pattern.DENSE in (self, other) else Pattern.INTRA_IMAGE_SINK


class SinkRule(Document):
    """Which tokens are sinks, and how much of its own image a sink head sees.

    Image delimiters are always sinks.

    Attributes:
        leading: the first tokens of a prompt, padding not counted, that are sinks.
        per_image: the first tokens of every image that are sinks too; for families without
            delimiters.
        diagonal_block: tokens. An image is cut into blocks of this length, from its first token
            on; an image row of a sink head sees its own block.
    """

    leading: Annotated[int, Field(ge=0)] = 4
    per_image: Annotated[int, Field(ge=0)] = 0
    diagonal_block: Annotated[int, Field(ge=1)] = 64


@dataclass(frozen=True)
class DenseRule:
    """What a dense head of one layer sees; the model decides it, no pattern does.

    Attributes:
        bidirectional: the tokens of one image see each other in both directions (Gemma 3).
        window: a query sees the keys less than so many tokens before it; None for all.
        window_spares_own_image: the tokens of one image see each other however far apart.
    """

    bidirectional: bool = False
    window: int | None = None
    window_spares_own_image: bool = False


def is_sink(layout: PromptLayout, sinks: SinkRule) -> Tensor:
    """Marks the sinks that are not text, which is visible anyway: bool [B, L]."""
    in_image = layout.kind == TokenKind.IMAGE
    delimiter = (layout.kind == TokenKind.START) | (layout.kind == TokenKind.END)
    chosen = layout.ordinal < sinks.leading
    if sinks.per_image:  # an operation on a GPU costs its start
        chosen = chosen | (layout.offset < sinks.per_image)
    return delimiter | (in_image & chosen)


def visible(
    layout: PromptLayout,
    pattern: Pattern,
    sinks: SinkRule,
    rule: DenseRule,
    query_start: int = 0,
) -> Tensor:
    """Builds the mask of a pattern literally, in O(L²) memory: the definition, and its test.

    Args:
        layout: of all keys.
        pattern: of the head.
        sinks: which tokens are sinks.
        rule: what a dense head would see.
        query_start: the first query is the token with this position among the keys.

    Returns:
        bool [B, L - query_start, L], true where the query (row) sees the key (column). The rows
        of padding see nothing.
    """
    allowed = _dense(layout, rule)
    if pattern is not Pattern.DENSE:
        allowed &= _kept(layout, pattern, sinks)
    return allowed[:, query_start:]


def _dense(layout: PromptLayout, rule: DenseRule) -> Tensor:
    """What a dense head sees, bool [B, L, L]."""
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
    """What a sparse pattern keeps of the dense pairs, bool [B, L, L]."""
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
    """Marks pairs of tokens inside one image, delimiters not counted: bool [B, L, L]."""
    inside = layout.kind == TokenKind.IMAGE
    same = layout.image[:, :, None] == layout.image[:, None, :]
    return same & inside[:, :, None] & inside[:, None, :]
