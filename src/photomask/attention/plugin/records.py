"""Records which tokens a cache holds, for later forwards with the same cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from photomask.attention.plugin.caches import (
    KeyPrints,
    key_prints,
    quantized_state,
    same_prints,
    same_state,
)
from photomask.errors import LayoutError

_ATTRIBUTE = "_photomask_tokens"
_WAY_OUT = "start with an empty cache, or let nothing but the converted model write to it"


@dataclass(frozen=True, eq=False)
class _Chunk:
    """The tokens of some forwards with the same number of prompts.

    Attributes:
        codes: the codes of the tokens, int8 [B, Q].
        prints: the prints of the keys that the forwards left in the cache, [B, Q, F]; None if the
            keys cannot be read.
    """

    codes: Tensor
    prints: Tensor | None

    def cut(self, stop: int) -> _Chunk:
        """Returns the chunk with only the tokens before `stop`."""
        prints = None if self.prints is None else self.prints[:, :stop]
        return _Chunk(self.codes[:, :stop], prints)


class TokenRecord:
    """The codes of the tokens in a cache, kept on the cache object itself.

    Therefore a copy of a cache has its own record, and the record is deleted together with the
    cache. The record also holds a few numbers of the keys of each token. With them, `codes` finds
    out whether the cache still holds the token.

    Attributes:
        length: the number of tokens so far.
    """

    def __init__(self) -> None:
        """Starts without tokens."""
        self.length = 0
        self._chunks: list[_Chunk] = []
        self._state: list[dict[str, Any]] | None = None

    @classmethod
    def of(cls, cache: Any) -> TokenRecord | None:
        """Returns the record of a cache, or None if the cache holds tokens without a record.

        Tokens that were cropped from the cache are removed from the record too.

        Args:
            cache: a cache of transformers; None means an empty cache.
        """
        length = 0 if cache is None else int(cache.get_seq_length())
        if length == 0:
            return cls()
        record = getattr(cache, _ATTRIBUTE, None)
        if record is None or record.length < length:
            return None
        if record._state is not None and not same_state(record._state, quantized_state(cache)):
            return None
        record._crop(length)
        return record

    def codes(self, cache: Any) -> Tensor | None:
        """Returns the codes of the tokens in a cache, int8 [B, L], or None if it is empty.

        The rows have the order of the cache. If the rows of the cache were reordered, chosen or
        repeated after they were written, then the codes are too.

        Args:
            cache: the cache of this record, before the next forward changes it.

        Raises:
            LayoutError: the cache holds other keys than those that were recorded, or it keeps them
                in a form in which they cannot be compared.
        """
        if self.length == 0:
            return None
        chunks = _merged(self._chunks)
        if self._state is not None:  # `of` has checked that nothing changed the cache
            if len(chunks) > 1:
                raise LayoutError(f"the number of prompts in this cache changed; {_WAY_OUT}")
            return chunks[0].codes
        prints = key_prints(cache, 0, self.length)
        printed = [(chunk.codes, chunk.prints) for chunk in chunks if chunk.prints is not None]
        if prints is None or len(printed) < len(chunks):
            raise LayoutError(
                f"this forward has images, and nothing can tell what its {type(cache).__name__} "
                "holds, because its layers do not show their keys; use a DynamicCache or a "
                "StaticCache, or give all tokens in one forward"
            )
        found, start = [], 0
        for appended, written in printed:
            found.append(_codes_of_rows(appended, written, prints, start))
            start += appended.shape[1]
        codes = torch.cat(found, 1)
        self._chunks = [_Chunk(codes, prints.values)]
        return codes

    def append(self, codes: Tensor, cache: Any) -> None:
        """Records that a cache now holds new tokens, with the codes int8 [B, Q]."""
        start, self.length = self.length, self.length + codes.shape[1]
        prints = key_prints(cache, start, self.length)
        self._chunks.append(_Chunk(codes, None if prints is None else prints.values))
        self._state = quantized_state(cache) if prints is None else None
        setattr(cache, _ATTRIBUTE, self)

    def _crop(self, length: int) -> None:
        """Removes the tokens from position `length` on."""
        while self.length > length:
            last = self._chunks.pop()
            self.length -= last.codes.shape[1]
            if self.length < length:
                self._chunks.append(last.cut(length - self.length))
                self.length = length


def _merged(chunks: list[_Chunk]) -> list[_Chunk]:
    """Returns the chunks, with neighbours joined that have the same number of prompts."""
    groups: list[list[_Chunk]] = []
    for chunk in chunks:
        if groups and groups[-1][0].codes.shape[0] == chunk.codes.shape[0]:
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
    merged = []
    for group in groups:
        device = group[0].codes.device
        codes = torch.cat([chunk.codes.to(device) for chunk in group], 1)
        prints = [chunk.prints for chunk in group if chunk.prints is not None]
        joined = torch.cat([each.to(device) for each in prints], 1) if prints else None
        merged.append(_Chunk(codes, joined if len(prints) == len(group) else None))
    return merged


def _codes_of_rows(codes: Tensor, written: Tensor, prints: KeyPrints, start: int) -> Tensor:
    """Returns the codes of a chunk in the order that the rows of the cache have now.

    Args:
        codes: the codes of the chunk, int8 [B', Q].
        written: the prints of the chunk's keys when it was appended, [B', Q, F].
        prints: the prints of the keys that the cache holds now.
        start: the position of the chunk's first token.

    Raises:
        LayoutError: the cache holds other keys.
    """
    now = prints.values[:, start : start + codes.shape[1]].to(written.device)
    unknown = min(max(prints.first - start, 0), codes.shape[1])
    if now.shape == written.shape and bool(same_prints(now, written)[:, unknown:].all()):
        return codes
    if unknown or now.shape[2] != written.shape[2]:
        raise _other_keys()
    rows = torch.stack([same_prints(now, each[None]) for each in written])  # [B', B, Q]
    chosen = codes.gather(0, rows.to(torch.uint8).argmax(0))
    told = rows.any(0) & (~rows | (codes[:, None] == chosen)).all(0)
    if not bool(told.all()):
        raise _other_keys()
    return chosen


def _other_keys() -> LayoutError:
    """Returns the error for a cache that something other than the converted model wrote to."""
    return LayoutError(
        "this forward has images, but its cache does not hold what the converted model wrote: "
        f"it was reset, cropped or changed, and then filled by something else; {_WAY_OUT}"
    )
