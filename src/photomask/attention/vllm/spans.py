"""The layout of a request from the image spans that the server knows, and their check.

The server knows where the tokens of each image are, from its own multimodal processor. It does not
pass token ids to an attention layer. Delimiters are therefore derived from the family: if it has
any, they are the tokens directly before and behind an image. `check_prompt` proves, once for each
request and before it is scheduled, that the result is what the token ids say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from photomask.attention.families import (
    Delimiters,
    Family,
    family_of,
    image_tokens,
    layout_of,
)
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.errors import LayoutError

Span = tuple[int, int]
"""The position of the first token of an image, and the position behind its last token."""


def layout_of_spans(
    family: Family, spans: Sequence[Span], tokens: int, device: torch.device | str = "cpu"
) -> PromptLayout:
    """Returns the layout of the first tokens of a request.

    An image that has not begun counts as text, and so does its start delimiter. For all tokens of a
    prompt the result equals `layout_of`. For fewer tokens it equals `layout_of` with
    `complete=False`.

    Args:
        family: the family of the model.
        spans: the images and video segments of the whole request, in ascending order. It may also
            hold those that begin behind the tokens.
        tokens: how many tokens the layout has.
        device: the device of the layout.

    Raises:
        LayoutError: the spans do not fit the family, or the tokens end inside an image whose tokens
            see each other in both directions.
    """
    check_spans(family, spans)
    delimiters = int(family.delimiters is not Delimiters.NONE)
    runs: list[tuple[int, int, int, int, int]] = []
    position = 0
    for number, (first, last) in enumerate(spans):
        if first >= tokens:
            break
        if family.bidirectional and last > tokens:
            raise LayoutError(
                f"{family.name}: the chunk ends at token {tokens}, inside the image of tokens "
                f"{first} to {last - 1}, whose tokens see each other in both directions; such an "
                "image must be computed in one chunk"
            )
        stop = min(last, tokens)
        runs += [
            (TokenKind.TEXT, -1, 0, 0, first - delimiters - position),
            (TokenKind.START, number, 0, 0, delimiters),
            (TokenKind.IMAGE, number, first, stop, stop - first),
            (TokenKind.END, number, 0, 0, min(delimiters, tokens - stop)),
        ]
        position = min(stop + delimiters, tokens)
    runs.append((TokenKind.TEXT, -1, 0, 0, tokens - position))
    return _layout_of_runs(runs, tokens, torch.device(device))


def _layout_of_runs(
    runs: Sequence[tuple[int, int, int, int, int]], tokens: int, device: torch.device
) -> PromptLayout:
    """Returns the layout of runs of tokens: kind, image, first, stop and length of each run."""
    table = torch.tensor(runs, dtype=torch.int32, device=device)
    rows = table[:, :4].repeat_interleave(table[:, 4], 0, output_size=tokens)
    kind, image, first, stop = (column.contiguous()[None] for column in rows.unbind(1))
    ordinal = torch.arange(tokens, dtype=torch.int32, device=device)[None]
    return PromptLayout(kind.to(torch.int8), image, first, stop, ordinal)


def check_spans(family: Family, spans: Sequence[Span]) -> None:
    """Checks that spans are ascending, and that each has room for its own delimiters.

    Raises:
        LayoutError: they are not, or have not.
    """
    delimiters = int(family.delimiters is not Delimiters.NONE)
    free = 0
    for first, stop in spans:
        if stop <= first or first - delimiters < free:
            raise LayoutError(
                f"{family.name}: the image of tokens {first} to {stop - 1} is empty, overlaps the "
                f"image before it, or leaves no room for the delimiters; all spans are {[*spans]}"
            )
        free = stop + delimiters


def check_prompt(
    config: Any, token_ids: Sequence[int], spans: Sequence[Span], window: int | None = None
) -> None:
    """Checks that the spans of a request say what its token ids say.

    Args:
        config: the configuration of the whole model, from transformers.
        token_ids: the token ids of the whole prompt.
        spans: the images and video segments of the prompt.
        window: the length of the sliding window of the model, if it has one. The server keeps
            longer spans to itself.

    Raises:
        LayoutError: the images cannot be told apart with certainty, the spans mark other tokens
            than the ids, or an image is longer than the window.
        UsageError: the model is of no supported family.
    """
    family = family_of(config)
    ids = torch.tensor([*token_ids], dtype=torch.int64)[None]
    inside = image_tokens(config, ids)
    if not spans and not bool(inside.any()):
        return
    stop = spans[-1][1] if spans else 0
    if stop > ids.shape[1]:
        raise LayoutError(
            f"{family.name}: the last image ends at token {stop - 1}, but the prompt has "
            f"{ids.shape[1]} tokens"
        )
    found = layout_of_spans(family, spans, ids.shape[1])
    if family.delimiters is Delimiters.NONE:
        differs = inside != (found.kind == TokenKind.IMAGE)
    else:
        expected = layout_of(config, ids)
        differs = (expected.kind != found.kind) | (expected.image != found.image)
    places = differs[0].nonzero()
    if len(places):
        raise LayoutError(
            f"{family.name}: token {int(places[0])} of the prompt has id "
            f"{int(ids[0, places[0]])}, which does not fit the images that the server placed: "
            f"{found.describe(0)}; image tokens in the text of a prompt are not supported"
        )
    _check_window(family, spans, window)


def _check_window(family: Family, spans: Sequence[Span], window: int | None) -> None:
    """Raises LayoutError if a span is longer than the window."""
    if window is None:
        return
    for first, stop in spans:
        if stop - first > window:
            raise LayoutError(
                f"{family.name}: the image of tokens {first} to {stop - 1} is longer than the "
                f"sliding window of {window} tokens; reduce the size of the image"
            )
