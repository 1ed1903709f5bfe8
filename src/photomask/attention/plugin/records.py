"""Which tokens a cache holds: what a later forward with the same cache needs to know."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ATTRIBUTE = "_photomask_tokens"


class TokenRecord:
    """The codes of the tokens in a cache, kept on the cache object itself.

    So a copy of a cache knows its tokens, and nothing is left when a cache goes.

    Attributes:
        length: tokens so far.
    """

    def __init__(self) -> None:
        """Starts without tokens."""
        self.length = 0
        self._chunks: list[Tensor] = []

    @classmethod
    def of(cls, cache: Any) -> TokenRecord | None:
        """Returns what is known of a cache; None when it holds tokens that nobody recorded.

        What was cropped from the cache since is forgotten here too.

        Args:
            cache: of transformers; None means an empty one.
        """
        length = 0 if cache is None else int(cache.get_seq_length())
        if length == 0:
            return cls()
        record = getattr(cache, _ATTRIBUTE, None)
        if record is None or record.length < length:
            return None
        record._crop(length)
        return record

    def joined(self, codes: Tensor) -> Tensor | None:
        """Returns the codes in the cache with those of new tokens behind, int8 [B, L].

        None when the cache was recorded with another number of prompts.
        """
        if any(chunk.shape[0] != codes.shape[0] for chunk in self._chunks):
            return None
        return torch.cat([*(chunk.to(codes.device) for chunk in self._chunks), codes], 1)

    def append(self, codes: Tensor, cache: Any) -> None:
        """Notes that new tokens are now in a cache; int8 [B, Q]."""
        self._chunks.append(codes)
        self.length += codes.shape[1]
        setattr(cache, _ATTRIBUTE, self)

    def _crop(self, length: int) -> None:
        """Forgets the tokens from a position on."""
        while self.length > length:
            last = self._chunks.pop()
            self.length -= last.shape[1]
            if self.length < length:
                kept = last[:, : length - self.length]
                self._chunks.append(kept)
                self.length = length
