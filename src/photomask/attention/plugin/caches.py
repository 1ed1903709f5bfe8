"""Caches of transformers: under which name they are passed, and which keys they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NAMES = ("cache", "past_key_values")
"""What forwards and their outputs call the cache: from transformers 5.24 on, and before."""

_NUMBERS = 16
"""At least so many numbers of each layer's keys identify a token, where the keys have them."""


def cache_among(arguments: Mapping[str, Any]) -> Any:
    """Returns the cache among the arguments of a forward; None if there is none.

    Args:
        arguments: by name, as the caller wrote them.
    """
    found = [arguments[name] for name in NAMES if arguments.get(name) is not None]
    return found[0] if found else None


def cache_in(output: Any) -> Any:
    """Returns the cache in what a model returned; None if it returned none.

    Args:
        output: a `ModelOutput`, or the tuple that `return_dict=False` gives.
    """
    if isinstance(output, tuple):
        caches = [each for each in output if hasattr(each, "get_seq_length")]
        return caches[0] if caches else None
    # Not by getattr: the output of new versions has the old name too, and warns when it is read.
    return cache_among(vars(output))


@dataclass(frozen=True, eq=False)
class KeyPrints:
    """A few numbers of the keys of every token, by which tokens in a cache are told apart.

    Attributes:
        values: [B, Q, F], of the first and of the last layer whose keys all stay. The keys of the
            first depend on the token and its position, those of the last on all tokens before.
        first: positions before it are not held any more by any layer; their values are zero.
    """

    values: Tensor
    first: int


def key_prints(cache: Any, start: int, length: int) -> KeyPrints | None:
    """Reads the keys of some tokens from a cache, at the cost of a small copy, without waiting.

    Args:
        cache: of transformers.
        start: position of the first token.
        length: how many tokens the cache holds.

    Returns:
        The prints of the tokens from `start` on; None if the cache does not show its keys.
    """
    _wait_for_offloading(cache)
    layers = _telling_layers(cache)
    kept = [keys for layer in layers if (keys := _kept_keys(layer, length)) is not None]
    if not kept or len(kept) < len(layers):
        return None
    prints, first = [], 0
    for keys in kept:
        held_from = length - keys.shape[2]
        first = max(first, held_from)
        heads, size = keys.shape[1], keys.shape[3]
        step = max(1, size // max(1, _NUMBERS // heads))
        taken = keys[:, :, max(start - held_from, 0) :, step // 2 :: step]
        missing = length - start - taken.shape[2]
        prints.append(nn.functional.pad(taken.transpose(1, 2).flatten(2), (0, 0, missing, 0)))
    device = prints[0].device
    return KeyPrints(torch.cat([each.to(device) for each in prints], 2), first)


def same_prints(a: Tensor, b: Tensor) -> Tensor:
    """Says for each token whether its numbers are the same; NaN equals NaN.

    Args:
        a: [..., F].
        b: [..., F], broadcast with `a`.
    """
    return ((a == b) | ((a != a) & (b != b))).all(-1)


def quantized_state(cache: Any) -> list[dict[str, Any]] | None:
    """Returns what the first and last layer of a cache consist of; None if it is not quantized.

    Their keys cannot be compared, since each update may round them anew; but each update also makes
    new tensors, so `same_state` knows whether there was one.
    """
    layers = _telling_layers(cache)
    if not layers or any(not hasattr(layer, "_quantized_keys") for layer in layers):
        return None
    return [dict(vars(layer)) for layer in layers]


def same_state(a: list[dict[str, Any]] | None, b: list[dict[str, Any]] | None) -> bool:
    """Says whether two states of quantized layers are of the same tensors and numbers."""
    if a is None or b is None or len(a) != len(b):
        return False
    return all(
        one.keys() == other.keys() and all(_is_same(one[name], other[name]) for name in one)
        for one, other in zip(a, b, strict=True)
    )


def _is_same(a: Any, b: Any) -> bool:
    """Numbers may be equal; everything else must be the same object."""
    return a is b or (isinstance(a, int | float | str) and type(a) is type(b) and a == b)


def _telling_layers(cache: Any) -> list[Any]:
    """Returns the first and the last layer, of those without a window where there are any."""
    layers = [layer for layer in getattr(cache, "layers", ()) if hasattr(layer, "keys")]
    whole = [layer for layer in layers if not getattr(layer, "is_sliding", False)] or layers
    return [whole[0], whole[-1]] if whole else []


def _kept_keys(layer: Any, length: int) -> Tensor | None:
    """Returns the keys of a layer's last tokens, [B, G, n, D]; None if it does not show them."""
    keys = layer.keys
    if not isinstance(keys, Tensor) or keys.ndim != 4 or hasattr(layer, "_quantized_keys"):
        return None
    held = min(keys.shape[2], length)  # static layers have room for more
    if held < length and not getattr(layer, "is_sliding", False):
        return None
    return keys[:, :, :held]


def _wait_for_offloading(cache: Any) -> None:
    """Keys that move between devices are complete afterwards; others are not waited for."""
    if getattr(cache, "offloading", False) and torch.cuda.is_available():
        torch.cuda.synchronize()
