"""Layouts that a user gives for forwards without token ids."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from photomask.attention.families import Family, codes_of_layout, layout_of_codes
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.plugin.attached import Attachment, attachment_of
from photomask.errors import LayoutError, UsageError

_STACK: ContextVar[tuple[_LayoutContext, ...]] = ContextVar("photomask_layouts", default=())
"""The contexts that this thread or task is in, the innermost last."""


def prompt_layout(model: Any, layout: PromptLayout) -> AbstractContextManager[None]:
    """Returns a context in which a layout says what the tokens of a converted model are.

    Inside, the model takes `inputs_embeds` without `input_ids`, and its parts may be called, such
    as `model.model` or `model.model.language_model`. This is what token pruning needs. The layout
    is that of the whole prompts, and position 0 is the first token in the cache:

    - A forward that starts with an empty cache, or continues one, takes the next tokens of the
      layout. So a prompt may come in chunks, and several prompts may follow each other.
    - Behind the last token of the layout, single tokens without ids are text, and token ids say
      what they are themselves. So `generate` may decode.
    - If there are token ids for tokens of the layout, both must agree. The same holds for tokens
      in the cache, and for the padding of `attention_mask`.
    - A batch may have n times as many rows as the layout if each n successive rows are the same,
      as beam search makes them.

    The context belongs to one model, and to the thread or task that enters it. It may be entered
    again. In nested contexts of one model, the innermost counts. Outside, the model refuses
    forwards without ids, as ever.

    Args:
        model: a model that `convert` returned; it may be compiled by torch.compile.
        layout: the layout of the whole prompts, on any device.

    Raises:
        UsageError: the model was never converted, or the layout is no `PromptLayout`.
        LayoutError: the layout is not one of whole prompts. A forward raises it if the layout does
            not fit what the forward brings.
    """
    attachment = attachment_of(getattr(model, "_orig_mod", model))
    if attachment is None:
        raise UsageError(
            f"this {type(model).__name__} was never converted, so it needs no layout; give the "
            "object that the conversion returned, and not a part of it"
        )
    if not isinstance(layout, PromptLayout):
        raise UsageError(f"the layout must be a PromptLayout, got {type(layout).__name__}")
    if bool(layout.ordinal[:, :1].any()):
        raise LayoutError(
            "the first tokens of this layout were cut off; give the layout of the whole prompts, "
            "and the forward takes the part that it needs"
        )
    return _LayoutContext(attachment, PromptLayout.of(layout.kind, layout.image))


class _LayoutContext(AbstractContextManager[None]):
    """The context of `prompt_layout`. It keeps no state of its own, so it may be entered again."""

    def __init__(self, attachment: Attachment, layout: PromptLayout):
        self.attachment = attachment
        self.layout = layout

    def __enter__(self) -> None:
        _STACK.set((*_STACK.get(), self))

    def __exit__(self, *_: object) -> None:
        stack = _STACK.get()
        if self in stack:  # not in a context of its own, where a generator may be closed
            last = len(stack) - 1 - stack[::-1].index(self)
            _STACK.set(stack[:last] + stack[last + 1 :])


def own_layout(attachment: Attachment) -> PromptLayout | None:
    """Returns the layout that was given for a model in this thread, or None if there is none."""
    for context in reversed(_STACK.get()):
        if context.attachment is attachment:
            return context.layout
    return None


@dataclass(frozen=True, eq=False)
class GivenTokens:
    """What a user's layout says of the tokens in the cache and of a forward.

    Attributes:
        codes: the codes of the forward's tokens, int8 [B, Q].
        layout: the layout of all these tokens.
    """

    codes: Tensor
    layout: PromptLayout

    @classmethod
    def of(cls, layout: PromptLayout, family: Family, start: int, tokens: Tensor) -> GivenTokens:
        """Takes the part of a layout that a forward brings.

        Args:
            layout: the layout of whole prompts.
            family: the family of the model.
            start: the number of tokens in the cache.
            tokens: the token ids [B, Q] or the embeddings [B, Q, E] of the forward.

        Raises:
            LayoutError: the layout has another number of prompts, or it ends inside the forward.
        """
        batch, queries = tokens.shape[:2]
        stop = start + queries
        if stop > layout.tokens:
            raise LayoutError(
                f"the layout has {layout.tokens} tokens, but this forward brings the tokens from "
                f"{start} to {stop}; give the layout of exactly the prompt's tokens"
            )
        copies = _copies(layout, tokens, batch)
        codes = codes_of_layout(layout)[:, :stop].repeat_interleave(copies, 0).to(tokens.device)
        real = (layout.kind != TokenKind.PADDING)[:, :stop].repeat_interleave(copies, 0)
        head = layout_of_codes(family, codes, real, complete=False)
        return cls(codes[:, start:], head)

    def check(self, found: PromptLayout) -> None:
        """Checks that what else is known of the tokens agrees with the layout.

        Args:
            found: the layout by the token ids, the record of the cache, and the attention mask.

        Raises:
            LayoutError: a token differs.
        """
        given = self.layout
        differs = (given.kind != found.kind) | (given.image != found.image)
        places = differs.nonzero()
        if len(places):
            row, position = places[0].tolist()
            told = [
                f"{TokenKind(int(each.kind[row, position])).name.lower()} of image "
                f"{int(each.image[row, position])}"
                for each in (given, found)
            ]
            told = [text.removesuffix(" of image -1") for text in told]
            raise LayoutError(
                f"prompt {row}, position {position}: the given layout says {told[0]}, but the "
                f"token ids, the cache or the attention_mask say {told[1]}; give the layout of "
                "these tokens, and an attention_mask that is 0 at its padding"
            )


def _copies(layout: PromptLayout, tokens: Tensor, batch: int) -> int:
    """Returns how many successive rows of a forward are the same prompt of the layout.

    Raises:
        LayoutError: the layout has another number of prompts, and the rows are no copies.
    """
    copies = batch // max(layout.batch, 1)
    same = copies * layout.batch == batch and copies > 0
    if same and copies > 1:
        rows = tokens.reshape(layout.batch, copies, -1)
        same = torch.equal(rows, rows[:, :1].expand_as(rows))
    if not same:
        raise LayoutError(
            f"the layout has {layout.batch} prompts, but this forward brings {batch}, which are "
            "no copies of them; give a layout with one prompt for each row, in the same order"
        )
    return copies
