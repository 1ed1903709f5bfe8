"""Reads caches of transformers: how they are passed, and which keys they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NAMES = ("cache", "past_key_values")
"""The names of the cache in forwards and their outputs: since transformers 5.24, and before."""

_NUMBERS = 16
"""The least number of numbers of a layer's keys that identify a token, if it has so many."""


def cache_among(arguments: Mapping[str, Any]) -> Any:
    """Returns the cache among the arguments of a forward, or None if there is none.

    Args:
        arguments: the arguments of the forward by name.
    """
    found = [arguments[name] for name in NAMES if arguments.get(name) is not None]
    return found[0] if found else None


def cache_in(output: Any) -> Any:
    """Returns the cache in the output of a model, or None if there is none.

    Args:
        output: a `ModelOutput`, or the tuple that the model returns with `return_dict=False`.
    """
    if isinstance(output, tuple):
        caches = [each for each in output if hasattr(each, "get_seq_length")]
        return caches[0] if caches else None
    # `getattr` would warn: the output of new versions still has the old name, as deprecated.
    return cache_among(vars(output))


@dataclass(frozen=True, eq=False)
class KeyPrints:
    """A few numbers of the keys of every token. They tell the tokens in a cache apart.

    Attributes:
        values: [B, Q, F], numbers from the first and the last layer without a window, or from the
            first and last of all layers if every layer has a window. The keys of the first layer
            depend on the token and its position, and those of the last layer on all earlier tokens.
        first: the first position whose keys all these layers hold. The values before it are not
            complete: they are zero for a layer that dropped its keys.
    """

    values: Tensor
    first: int


def key_prints(cache: Any, start: int, length: int) -> KeyPrints | None:
    """Reads numbers of the keys of some tokens from a cache, at the cost of a small copy.

    Args:
        cache: a cache of transformers.
        start: the position of the first token.
        length: the number of tokens that the cache holds.

    Returns:
        The prints of the tokens from `start` on, or None if the cache does not show its keys.
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
    """Returns for each token whether its numbers are the same in both. NaN equals NaN.

    Args:
        a: some prints, [..., F].
        b: other prints, [..., F], which are broadcast with `a`.
    """
    return ((a == b) | ((a != a) & (b != b))).all(-1)


def quantized_state(cache: Any) -> list[dict[str, Any]] | None:
    """Returns the attributes of the first and last layer of a quantized cache, otherwise None.

    The keys of such a cache cannot be compared, because each update may round them again. But each
    update also makes new tensors, so `same_state` can tell whether there was an update.
    """
    layers = _telling_layers(cache)
    if not layers or any(not hasattr(layer, "_quantized_keys") for layer in layers):
        return None
    return [dict(vars(layer)) for layer in layers]


def same_state(a: list[dict[str, Any]] | None, b: list[dict[str, Any]] | None) -> bool:
    """Returns whether two states of quantized layers have the same tensors and numbers."""
    if a is None or b is None or len(a) != len(b):
        return False
    return all(
        one.keys() == other.keys() and all(_is_same(one[name], other[name]) for name in one)
        for one, other in zip(a, b, strict=True)
    )


def _is_same(a: Any, b: Any) -> bool:
    """Returns whether two attributes are the same object, or equal numbers or strings."""
    return a is b or (isinstance(a, int | float | str) and type(a) is type(b) and a == b)


def _telling_layers(cache: Any) -> list[Any]:
    """Returns the first and the last layer without a window, or of all if each has a window."""
    layers = [layer for layer in getattr(cache, "layers", ()) if hasattr(layer, "keys")]
    whole = [layer for layer in layers if not getattr(layer, "is_sliding", False)] or layers
    return [whole[0], whole[-1]] if whole else []


def _kept_keys(layer: Any, length: int) -> Tensor | None:
    """Returns the keys of a layer's last tokens, [B, G, n, D], or None if it hides them."""
    keys = layer.keys
    if not isinstance(keys, Tensor) or keys.ndim != 4 or hasattr(layer, "_quantized_keys"):
        return None
    held = min(keys.shape[2], length)  # static layers have unused room behind their tokens
    if held < length and not getattr(layer, "is_sliding", False):
        return None
    return keys[:, :, :held]


def _wait_for_offloading(cache: Any) -> None:
    """Waits until keys that move between devices are complete, if the cache offloads them."""
    if getattr(cache, "offloading", False) and torch.cuda.is_available():
        torch.cuda.synchronize()
