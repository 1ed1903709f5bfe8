"""The forward in progress: its tokens, its images, and the calls of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any

import torch
from torch import Tensor

from photomask.attention.families import (
    Family,
    codes_of_single_tokens,
    family_of,
    has_image_tokens,
    layout_of_codes,
    settled,
    token_codes,
)
from photomask.attention.layout import PromptLayout
from photomask.attention.plugin.caches import cache_among
from photomask.attention.plugin.calls import AttentionCall, AttentionHandler
from photomask.attention.plugin.records import TokenRecord
from photomask.errors import LayoutError

FORWARD: ContextVar[Forward | None] = ContextVar("photomask_forward", default=None)
"""The forward that is in progress in this thread or task."""

_FEATURES = ("pixel_values", "mm_encoder_outputs")


class Forward:
    """One forward of an attached model.

    Attributes:
        module: the model.
        handler: the handler of its attention calls.
        family: the family of the model.
        has_images: whether there are tokens of images among the queries.
        calls: the calls of the layers so far, by the number of the layer.
        token: the token that resets `FORWARD` to its earlier value.
    """

    token: Token[Forward | None] | None = None

    def __init__(self, module: Any, handler: AttentionHandler, arguments: Mapping[str, Any]):
        """Reads the model's arguments.

        Args:
            module: the model.
            handler: the handler of its attention calls.
            arguments: the arguments of its forward, by name.

        Raises:
            LayoutError: there are no token ids, or the images cannot be told apart.
        """
        config = module.config
        self.module = module
        self.handler = handler
        self.family: Family = family_of(config)
        ids = arguments.get("input_ids")
        if ids is None:
            raise LayoutError(
                "inputs_embeds without input_ids do not tell which token belongs to which image; "
                "give the model input_ids, or run it as it was before the conversion"
            )
        self.calls: dict[int, AttentionCall] = {}
        self._cache = cache_among(arguments)
        self._record = TokenRecord.of(self._cache)
        if _is_decoding(ids, self._record, arguments):
            self.has_images = False
            self._codes = codes_of_single_tokens(config, ids)
        else:
            self.has_images = has_image_tokens(config, ids)
            processed = {key: value for key, value in arguments.items() if key != "input_ids"}
            self._codes = token_codes(config, ids, **processed)
        self._all_codes = self._join_codes() if self.has_images else None
        self._layout: PromptLayout | None = None

    def layout(self, attention_mask: Tensor | None) -> PromptLayout:
        """Returns the layout of the tokens in the cache and of this forward. It is made once.

        Args:
            attention_mask: [B, L or more], false for padding, where L is the number of these
                tokens; None if there is no padding.

        Raises:
            LayoutError: there are no images, they cannot be told apart, or the mask is too short.
        """
        if self._layout is None:
            codes = self._all_codes
            if codes is None:
                raise LayoutError("this forward has no images, so its tokens have no layout")
            if attention_mask is not None and attention_mask.shape[1] < codes.shape[1]:
                raise LayoutError(
                    f"attention_mask covers {attention_mask.shape[1]} tokens, but cache and "
                    f"input_ids hold {codes.shape[1]}; give the mask of all of them"
                )
            if attention_mask is not None:
                attention_mask = attention_mask[:, : codes.shape[1]]
            self._layout = layout_of_codes(self.family, codes, attention_mask, complete=False)
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
                f"the cache holds {before.shape[0]} prompts, but input_ids holds "
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
