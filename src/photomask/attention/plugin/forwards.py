"""The forward in progress: its tokens, its images, and the calls of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any

import torch
from torch import Tensor

from photomask.attention.families import (
    Family,
    TokenCode,
    codes_of_single_tokens,
    family_of,
    has_image_codes,
    has_image_tokens,
    layout_of_codes,
    settled,
    token_codes,
)
from photomask.attention.layout import PromptLayout
from photomask.attention.plugin.attached import Attachment
from photomask.attention.plugin.caches import cache_among
from photomask.attention.plugin.calls import AttentionCall
from photomask.attention.plugin.own_layouts import GivenTokens, own_layout
from photomask.attention.plugin.records import TokenRecord
from photomask.errors import LayoutError

FORWARD: ContextVar[Forward | None] = ContextVar("photomask_forward", default=None)
"""The forward that is in progress in this thread or task."""

_FEATURES = ("pixel_values", "mm_encoder_outputs")


class Forward:
    """One forward of an attached model, or of the part of it that runs the text tower.

    Attributes:
        module: the model or the part.
        attachment: what the model keeps.
        family: the family of the model.
        has_images: whether there are tokens of images among the queries.
        calls: the calls of the layers so far, by the number of the layer.
        kernels: the names of the functions that computed a layer so far, by its number.
        token: the token that resets `FORWARD` to its earlier value.
    """

    token: Token[Forward | None] | None = None

    def __init__(
        self,
        module: Any,
        attachment: Attachment,
        config: Any,
        arguments: Mapping[str, Any],
    ):
        """Reads the arguments of a forward.

        Args:
            module: the model, or the part of it that is called.
            attachment: what the model keeps.
            config: the configuration of the whole model.
            arguments: the arguments of the forward, by name.

        Raises:
            LayoutError: there are no token ids and no layout, the images cannot be told apart, or
                a given layout does not fit the arguments.
        """
        self.module = module
        self.attachment = attachment
        self.family: Family = family_of(config)
        self.calls: dict[int, AttentionCall] = {}
        self.kernels: dict[int, tuple[str, ...]] = {}
        self._cache = cache_among(arguments)
        self._record = TokenRecord.of(self._cache)
        self._given = self._take_given(arguments)
        ids = arguments.get("input_ids")
        if ids is None:
            self._codes = self._codes_without_ids(arguments)
            self.has_images = has_image_codes(self._codes)
        elif _is_decoding(ids, self._record, arguments):
            self._codes = codes_of_single_tokens(config, ids)
            self.has_images = False
        else:
            processed = {key: value for key, value in arguments.items() if key != "input_ids"}
            self._codes = token_codes(config, ids, **processed)
            self.has_images = has_image_tokens(config, ids)
        if self._given is not None and ids is not None:
            self.has_images = self.has_images or has_image_codes(self._given.codes)
        self._all_codes = self._join_codes() if self.has_images else None
        self._layout: PromptLayout | None = None

    def _take_given(self, arguments: Mapping[str, Any]) -> GivenTokens | None:
        """Returns what a user's layout says of the tokens of this forward, or None if nothing."""
        own = own_layout(self.attachment)
        start = 0 if self._cache is None else int(self._cache.get_seq_length())
        ids, embeddings = arguments.get("input_ids"), arguments.get("inputs_embeds")
        tokens = embeddings if ids is None else ids
        if own is None or tokens is None or start >= own.tokens:
            return None
        return GivenTokens.of(own, self.family, start, tokens)

    def _codes_without_ids(self, arguments: Mapping[str, Any]) -> Tensor:
        """Returns the codes of embeddings, int8 [B, Q].

        Raises:
            LayoutError: no layout says what they are.
        """
        if self._given is not None:
            return self._given.codes
        embeddings = arguments.get("inputs_embeds")
        own = own_layout(self.attachment)
        if own is None or embeddings is None:
            raise LayoutError(
                "inputs_embeds without input_ids do not tell which token belongs to which image; "
                "give the model input_ids, or say it by `with prompt_layout(model, layout):` in "
                "the thread of the forward, or run the model as it was before the conversion"
            )
        if embeddings.shape[1] != 1:
            raise LayoutError(
                f"the layout ends after {own.tokens} tokens, which are all in the cache, and this "
                f"forward brings {embeddings.shape[1]} more without input_ids; give the layout of "
                "all tokens, or input_ids"
            )
        return torch.full(
            embeddings.shape[:2], int(TokenCode.TEXT), dtype=torch.int8, device=embeddings.device
        )

    def layout(self, attention_mask: Tensor | None) -> PromptLayout:
        """Returns the layout of the tokens in the cache and of this forward. It is made once.

        Args:
            attention_mask: [B, L or more], false for padding, where L is the number of these
                tokens; None if there is no padding.

        Raises:
            LayoutError: there are no images, they cannot be told apart, the mask is too short, or
                a given layout says something else.
        """
        if self._layout is None:
            codes = self._all_codes
            if codes is None:
                raise LayoutError("this forward has no images, so its tokens have no layout")
            if attention_mask is not None and attention_mask.shape[1] < codes.shape[1]:
                raise LayoutError(
                    f"attention_mask covers {attention_mask.shape[1]} tokens, but cache and "
                    f"inputs hold {codes.shape[1]}; give the mask of all of them"
                )
            if attention_mask is not None:
                attention_mask = attention_mask[:, : codes.shape[1]]
            layout = layout_of_codes(self.family, codes, attention_mask, complete=False)
            if self._given is not None:
                self._given.check(layout)
            self._layout = layout
        return self._layout

    def _join_codes(self) -> Tensor:
        """Returns the codes of the tokens in the cache and of this forward, int8 [B, L].

        Raises:
            LayoutError: the cache holds tokens that the converted model did not write, or tokens of
                another number of prompts.
        """
        if self._record is None:
            raise LayoutError(
                "this forward has images, but its cache was filled by a forward that this model "
                "did not see; start with an empty cache, or fill it with the converted model"
            )
        before = self._record.codes(self._cache)
        if before is None:
            return self._codes
        if before.shape[0] != self._codes.shape[0]:
            raise LayoutError(
                f"the cache holds {before.shape[0]} prompts, but this forward brings "
                f"{self._codes.shape[0]}; give tokens for each prompt in the cache"
            )
        return settled(torch.cat([before.to(self._codes.device), self._codes], 1))

    def remember(self, returned: Any) -> None:
        """Records the tokens of this forward, which a cache now holds.

        Args:
            returned: the cache that the model returned, or None. It is used only if the forward was
                given no cache.
        """
        cache = returned if self._cache is None else self._cache
        if self._record is not None and cache is not None:
            self._record.append(self._codes, cache)


def _is_decoding(ids: Tensor, record: TokenRecord | None, arguments: Mapping[str, Any]) -> bool:
    """Returns whether the forward decodes: one token without pixels behind earlier tokens.

    Such a token is text or a delimiter, whatever its id is.
    """
    brings_pixels = any(
        value is not None and name.startswith(_FEATURES) for name, value in arguments.items()
    )
    started = record is None or record.length > 0
    return ids.shape[1] == 1 and started and not brings_pixels
