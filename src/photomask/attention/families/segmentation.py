"""Derives the layout of prompts from token ids, by the rules of a family.

Prompts whose images cannot be told apart with certainty are refused.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from photomask.attention.families.table import Delimiters, Family, family_of
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.errors import LayoutError


class TokenCode(enum.IntEnum):
    """What a token is, judged by its id alone, or what a layout says of it.

    The neighbours and the padding of a token then decide its `TokenKind`. The codes whose names
    begin with `GIVEN` come from a layout and not from ids, so no family's rules apply to them.
    """

    TEXT = 0
    START = 1
    END = 2
    IMAGE = 3
    VIDEO = 4
    FIRST = 5
    """The first token of an image or video, in a family without delimiters."""
    GIVEN_START = 9
    GIVEN_END = 10
    GIVEN_IMAGE = 11
    GIVEN_FIRST = 12
    """The first token of an image of a layout."""


def layout_of(
    config: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    complete: bool = True,
    **processed: Any,
) -> PromptLayout:
    """Returns the layout of prompts: which token belongs to which image.

    Args:
        config: the configuration of the whole model, from transformers.
        input_ids: the token ids, integers [B, L].
        attention_mask: [B, L], 0 for padding; None if there is no padding.
        complete: whether the prompts end here. If not, more tokens follow, and the last image of a
            prompt may still be open. A start delimiter whose image has not begun counts as text.
        processed: the other outputs of the processor, such as `image_grid_thw` or `image_sizes`.
            Outputs that the family does not need are ignored.

    Raises:
        LayoutError: the images cannot be told apart with certainty. The error names the prompt, the
            position and the reason.
        UsageError: the model is of no supported family.
    """
    if input_ids.ndim != 2:
        raise LayoutError(f"input_ids must be [prompts, tokens], got {list(input_ids.shape)}")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise LayoutError(
            f"attention_mask is {list(attention_mask.shape)}, but input_ids is "
            f"{list(input_ids.shape)}; both must be [prompts, tokens]"
        )
    codes = token_codes(config, input_ids, **processed)
    layout = layout_of_codes(family_of(config), codes, attention_mask, complete=complete)
    if complete:
        _check_lengths(config, layout, codes, processed)
    return layout


def token_codes(config: Any, input_ids: Tensor, **processed: Any) -> Tensor:
    """Returns the `TokenCode` of each token, judged by its id alone: int8 [B, L].

    The codes of consecutive chunks of a prompt can be joined. `layout_of_codes` makes a layout of
    them.

    Args:
        config: the configuration of the whole model.
        input_ids: the token ids, integers [B, L].
        processed: the other outputs of the processor for these tokens. A family without delimiters
            needs those from which its image lengths are derived.

    Raises:
        LayoutError: the lengths do not fit the tokens, they are missing although only they tell
            images apart, or the images do not all have the same two neighbouring tokens.
    """
    family = family_of(config)
    codes = torch.full(input_ids.shape, TokenCode.TEXT, dtype=torch.int8, device=input_ids.device)
    named = [(TokenCode.IMAGE, "image_token_id"), (TokenCode.VIDEO, "video_token_id")]
    if family.delimiters is Delimiters.NAMED:
        named += [(TokenCode.START, family.start_id), (TokenCode.END, family.end_id)]
    for code, attribute in named:
        token = getattr(config, attribute, None)
        if token is not None:
            codes = torch.where(input_ids == token, int(code), codes)
    if family.delimiters is Delimiters.NEIGHBOURS:
        _check_neighbours(family, input_ids, _is_image(codes))
    if family.delimiters is Delimiters.NONE:
        lengths = family.lengths(config, processed)
        for code, modality in ((TokenCode.IMAGE, "image"), (TokenCode.VIDEO, "video")):
            first = _first_tokens(family, codes == code, lengths.get(modality), modality)
            codes = torch.where(first, int(TokenCode.FIRST), codes)
    return codes.to(torch.int8)


def codes_of_single_tokens(config: Any, input_ids: Tensor) -> Tensor:
    """Returns preliminary codes of tokens that came one by one, without pixels: int8 [B, 1].

    All tokens are text, except that a delimiter gets its code negated. It may belong to an image of
    a prompt that comes in chunks of one token, or the model may have generated it. `settled`
    decides that later, by the neighbours of the token.

    Args:
        config: the configuration of the whole model.
        input_ids: the token ids, integers [B, 1].
    """
    family = family_of(config)
    codes = torch.full_like(input_ids, TokenCode.TEXT, dtype=torch.int8)
    if family.delimiters is Delimiters.NAMED:
        for code, attribute in ((TokenCode.START, family.start_id), (TokenCode.END, family.end_id)):
            token = getattr(config, attribute, None)
            if token is not None:
                codes = torch.where(input_ids == token, -int(code), codes)
    return codes.to(torch.int8)


def settled(codes: Tensor) -> Tensor:
    """Returns the final codes of tokens that came one by one: int8 [B, L], none negated."""
    inside = _is_image(codes)
    opens = (codes == -TokenCode.START) & _behind(inside)
    closes = (codes == -TokenCode.END) & _before(inside)
    codes = torch.where(opens | closes, -codes, codes)
    return codes.clamp(min=int(TokenCode.TEXT))


def layout_of_codes(
    family: Family, codes: Tensor, attention_mask: Tensor | None = None, *, complete: bool = True
) -> PromptLayout:
    """Returns the layout of tokens from their codes.

    Args:
        family: the family of the model.
        codes: int8 [B, L], as `token_codes` returns them.
        attention_mask: [B, L], 0 for padding; None if there is no padding.
        complete: whether the prompts end here, as in `layout_of`.

    Raises:
        LayoutError: the images cannot be told apart with certainty.
    """
    real = torch.ones_like(codes, dtype=torch.bool)
    if attention_mask is not None:
        real = attention_mask.to(codes.device) != 0
    inside = _is_image(codes) & real
    before = torch.where(_before(inside), _before(codes), int(TokenCode.TEXT))
    switched = (codes != before) & (codes != TokenCode.GIVEN_IMAGE) & ~_is_first(before)
    opens = inside & (~_before(inside) | _is_first(codes) | switched)
    closes = inside & (~_behind(inside) | _behind(opens))
    last = real & ~_behind(real)
    by_id = codes < TokenCode.GIVEN_START
    start = (codes == TokenCode.GIVEN_START) & real & _behind(opens)
    end = (codes == TokenCode.GIVEN_END) & real
    if family.delimiters is Delimiters.NAMED:
        start_id, end_id = (codes == TokenCode.START) & real, (codes == TokenCode.END) & real
        ends = (opens, closes)
        _check_named(family, by_id, ends, (start | start_id, end | end_id), last, complete)
        start, end = start | (start_id & _behind(opens)), end | end_id
    elif family.delimiters is Delimiters.NEIGHBOURS:
        start |= _behind(opens & by_id) & real & ~inside
        end |= _before(closes & by_id) & real & ~inside
        _check_surrounded(family, by_id, (opens, closes), (start, end), last, complete)
    else:
        lost = opens & by_id & (codes != TokenCode.FIRST)
        _refuse(family, lost, "image tokens of an unknown image")
    number = opens.cumsum(1, dtype=torch.int32) - 1
    image = torch.where(inside | end, number, -1)
    image = torch.where(start, number + 1, image)
    kind = torch.where(real, int(TokenKind.TEXT), int(TokenKind.PADDING))
    for name, mask in ((TokenKind.IMAGE, inside), (TokenKind.START, start), (TokenKind.END, end)):
        kind = torch.where(mask, int(name), kind)
    return PromptLayout.of(kind.to(torch.int8), image)


def codes_of_layout(layout: PromptLayout) -> Tensor:
    """Returns the codes of the tokens of a layout: int8 [B, L].

    `layout_of_codes` makes the same layout of them in every family, together with the padding.
    Padding has the code of text.

    Args:
        layout: the layout of whole prompts.
    """
    kind, first = layout.kind, layout.first == layout.positions
    codes = torch.full_like(kind, TokenCode.TEXT)
    for code, marked in (
        (TokenCode.GIVEN_START, kind == TokenKind.START),
        (TokenCode.GIVEN_END, kind == TokenKind.END),
        (TokenCode.GIVEN_IMAGE, kind == TokenKind.IMAGE),
        (TokenCode.GIVEN_FIRST, (kind == TokenKind.IMAGE) & first),
    ):
        codes = torch.where(marked, int(code), codes)
    return codes.to(torch.int8)


def has_image_codes(codes: Tensor) -> bool:
    """Returns whether any token belongs to an image or video, by its code. It waits for the device.

    Args:
        codes: int8 [B, L], as `token_codes` or `codes_of_layout` returns them.
    """
    return bool(_is_image(codes).any())


def has_image_tokens(config: Any, input_ids: Tensor) -> bool:
    """Returns whether any token belongs to an image or video. It waits for the device."""
    return bool(image_tokens(config, input_ids).any())


def image_tokens(config: Any, input_ids: Tensor) -> Tensor:
    """Marks the tokens of images and videos by their ids: bool in the shape of the ids."""
    found = input_ids == config.image_token_id
    video = getattr(config, "video_token_id", None)
    return found if video is None else found | (input_ids == video)


def _is_image(codes: Tensor) -> Tensor:
    """Marks the tokens of images and videos."""
    given = codes >= TokenCode.GIVEN_IMAGE
    return given | ((codes >= TokenCode.IMAGE) & (codes <= TokenCode.FIRST))


def _is_first(codes: Tensor) -> Tensor:
    """Marks the tokens that are the first of an image whatever stands before them."""
    return (codes == TokenCode.FIRST) | (codes == TokenCode.GIVEN_FIRST)


def _before(values: Tensor) -> Tensor:
    """Returns for every token the value of the token before it; zero for the first."""
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], 1)


def _behind(values: Tensor) -> Tensor:
    """Returns for every token the value of the token behind it; zero for the last."""
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)


def _refuse(family: Family, wrong: Tensor, reason: str) -> None:
    """Raises LayoutError for the first token that `wrong` marks, if it marks any."""
    places = wrong.nonzero()
    if len(places):
        row, position = places[0].tolist()
        raise LayoutError(f"{family.name}: prompt {row}, position {position}: {reason}")


def _check_named(
    family: Family,
    by_id: Tensor,
    ends: tuple[Tensor, Tensor],
    delimiters: tuple[Tensor, Tensor],
    last: Tensor,
    complete: bool,
) -> None:
    """Raises LayoutError unless every image stands between its start and its end token.

    Args:
        family: the family.
        by_id: the tokens that are known by their ids; the others are not checked.
        ends: the first tokens of all images, and the last ones.
        delimiters: the start tokens, and the end tokens.
        last: the last token of each prompt.
        complete: whether the prompts end here.
    """
    (opens, closes), (start, end) = ends, delimiters
    name = f"({family.start_id} and {family.end_id} of the configuration mark images)"
    bare = opens & by_id & ~_before(start)
    _refuse(family, bare, f"image tokens without a start token before {name}")
    empty = start & by_id & ~_behind(opens)
    _refuse(
        family, empty if complete else empty & ~last, f"start token without image tokens {name}"
    )
    open_image = closes & by_id & ~_behind(end)
    _refuse(family, open_image & ~last, f"image tokens without an end token behind {name}")
    if complete:
        _refuse(family, open_image, f"the prompt ends inside an image {name}")
    lone = end & by_id & ~_before(closes)
    _refuse(family, lone, f"end token without image tokens before {name}")


def _check_surrounded(
    family: Family,
    by_id: Tensor,
    ends: tuple[Tensor, Tensor],
    delimiters: tuple[Tensor, Tensor],
    last: Tensor,
    complete: bool,
) -> None:
    """Raises LayoutError unless each image has a token of its own before it and one behind it.

    The arguments are those of `_check_named`.
    """
    (opens, closes), (start, end) = ends, delimiters
    rule = "every image stands between a start and an end token"
    _refuse(family, opens & by_id & ~_before(start), f"no start token before the image; {rule}")
    open_image = closes & by_id & ~_behind(end)
    _refuse(family, open_image & ~last, f"no end token behind the image; {rule}")
    if complete:
        _refuse(family, open_image, f"the prompt ends inside an image; {rule}")
    _refuse(family, start & end, f"one token between two images; {rule}")


def _check_neighbours(family: Family, input_ids: Tensor, inside: Tensor) -> None:
    """Raises LayoutError unless all images stand between the same two tokens."""
    for side, place in (("before", _behind(inside)), ("behind", _before(inside))):
        place = place & ~inside
        around = input_ids[place]
        if around.numel():
            strange = place & (input_ids != around[0])
            _refuse(
                family,
                strange,
                f"the token {side} this image is not the one {side} the other images, so it is no "
                "image delimiter",
            )


def _first_tokens(
    family: Family, inside: Tensor, lengths: list[int] | None, modality: str
) -> Tensor:
    """Marks the first token of each image, which it finds from the lengths of the images.

    Raises:
        LayoutError: the lengths are missing, or they do not fit the tokens.
    """
    if not bool(inside.any()):
        return torch.zeros_like(inside)
    if lengths is None:
        reason = (
            f"{modality} tokens, and nothing tells where one {modality} ends; this family has no "
            "delimiters, so give what the processor returned (image_sizes, batch_num_images, "
            "pixel_values_videos) with the tokens, and never a part of them"
        )
        _refuse(family, inside, reason)
    stops = torch.tensor(lengths, device=inside.device).cumsum(0)
    place = inside.flatten().cumsum(0) - 1
    total = int(place[-1]) + 1
    if int(stops[-1] if len(stops) else 0) != total:
        reason = f"{total} {modality} tokens, but the processor announced {lengths} tokens"
        _refuse(family, inside, reason)
    starts = torch.cat([stops.new_zeros(1), stops[:-1]])
    first = inside & torch.isin(place, starts).view_as(inside)
    opens = inside & ~_before(inside)
    _refuse(
        family,
        opens & ~first,
        f"the {modality} tokens before this one end inside a {modality}; the processor announced "
        f"{lengths} tokens",
    )
    return first


def _check_lengths(
    config: Any, layout: PromptLayout, codes: Tensor, processed: Mapping[str, Any]
) -> None:
    """Raises LayoutError unless each image has as many tokens as the processor announced."""
    family = family_of(config)
    if family.delimiters is Delimiters.NONE:
        return  # here the layout was made from the lengths
    lengths = family.lengths(config, processed)
    first = (layout.kind == TokenKind.IMAGE) & (layout.first == layout.positions)
    for code, modality in ((TokenCode.IMAGE, "image"), (TokenCode.VIDEO, "video")):
        expected = lengths.get(modality)
        if expected is None:
            continue
        places = first & (codes == code)
        found = (layout.stop - layout.first)[places].tolist()
        for index, (row, position) in enumerate(places.nonzero().tolist()):
            announced = expected[index] if index < len(expected) else "no"
            if found[index] != announced:
                raise LayoutError(
                    f"{family.name}: prompt {row}, position {position}: {found[index]} tokens of "
                    f"{modality} {index} of the batch, but the processor announced {announced}; "
                    "give input_ids and the other inputs of one call of the processor"
                )
        if len(expected) > len(found):
            raise LayoutError(
                f"{family.name}: {len(found)} {modality} segments among the tokens of "
                f"{layout.batch} prompts, but the processor announced {len(expected)}; give "
                "input_ids and the other inputs of one call of the processor"
            )
