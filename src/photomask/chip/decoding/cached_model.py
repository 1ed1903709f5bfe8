"""Wraps a causal language model of transformers as a function of tokens and a cache."""

import inspect
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.dependencies import OptionalPackage
from photomask.errors import CaptureError, DataError, UsageError


class CachedModel(nn.Module):
    """Runs one chunk of tokens through a causal language model, with an explicit cache.

    ```text
    logits, *new = model(tokens, positions, mask, *cached)
    ```

    `tokens` and `positions` are int64 [batch, T]. `mask`, int64 [batch, 1, T, L + T], is 1 where a
    token attends to a position of the cache (the first L) or of its chunk. `cached` holds the keys
    and the values of every layer in turn, [batch, heads, L, size], and `new` those of the chunk,
    [batch, heads, T, size]. T and L are fixed by the inputs of the capture. The caller appends the
    new keys and values to the cache. `mask` replaces the model's own mask, so a sliding window is
    not applied.

    Attributes:
        model: the model of transformers.
        states: by name of a cached input, the index of the output that updates it, as for
            `prepare`.
    """

    order: Tensor

    def __init__(self, model: nn.Module, *, positions: int):
        """Wraps a model, which is not changed.

        Args:
            model: a causal language model of transformers. It takes `input_ids`, `position_ids`,
                `attention_mask` and `cache` (before transformers 5.24 `past_key_values`), and
                returns `logits`.
            positions: the number of positions, which is the length of the longest text.

        Raises:
            MissingDependencyError: transformers is not installed.
            UsageError: `positions` is below 1, or larger than the model's number of positions or
                its attention window.
            CaptureError: the cache of the model is not keys and values of every layer.
        """
        super().__init__()
        _check_positions(model, positions)
        self.model = model
        accepted = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in accepted else "past_key_values"
        # Positions are looked up in this table, because only indices of embeddings stay integers.
        self.register_buffer("order", torch.arange(positions)[:, None], persistent=False)
        self._shapes = self._find_shapes()
        self.states = {f"cached_{at}": at + 1 for at in range(len(self._shapes))}

    def forward(
        self, tokens: Tensor, positions: Tensor, mask: Tensor, *cached: Tensor
    ) -> tuple[Tensor, ...]:
        """Returns the logits [batch, T, vocabulary], then the chunk's keys and values."""
        kept = _explicit_cache()(cached)
        result = self.model(
            input_ids=tokens,
            position_ids=F.embedding(positions, self.order).squeeze(-1),
            attention_mask=mask.to(torch.bool),
            use_cache=True,
            **{self._cache_argument: kept},
        )
        return (result.logits, *kept.new)

    def first_chunk(self, tokens: Tensor, cache_length: int) -> list[Tensor]:
        """Returns the inputs of a first chunk, as an example for `prepare` or for calibration.

        Args:
            tokens: the tokens, int64 [batch, T].
            cache_length: the length L of the cache, which is empty.

        Raises:
            DataError: the tokens are not int64 [batch, T], or are more than the positions.
            UsageError: the cache length is below 1 or exceeds the number of positions.
        """
        count = len(self.order)
        if tokens.ndim != 2 or tokens.dtype != torch.int64 or not 1 <= tokens.shape[1] <= count:
            raise DataError(
                f"tokens must be int64 [batch, 1 to {count}], got {tokens.dtype} of shape "
                f"{list(tokens.shape)}"
            )
        if not 1 <= cache_length <= count:
            raise UsageError(f"cache_length must be 1 to {count}, found {cache_length}")
        batch, length = tokens.shape
        mask = torch.zeros(batch, 1, length, cache_length + length, dtype=torch.int64)
        mask[..., cache_length:] = torch.ones(length, length, dtype=torch.int64).tril()
        cached = [torch.zeros(batch, heads, cache_length, size) for heads, size in self._shapes]
        return [tokens, torch.arange(length).expand(batch, -1).clone(), mask, *cached]

    def _find_shapes(self) -> list[tuple[int, int]]:
        """Returns heads and size of each layer's keys and values, by running the model once."""
        kept = _explicit_cache()(())
        device = next(self.model.parameters()).device
        try:
            with torch.no_grad():
                token = torch.zeros(1, 1, dtype=torch.int64, device=device)
                self.model(input_ids=token, use_cache=True, **{self._cache_argument: kept})
        except Exception as error:
            raise CaptureError(
                f"{type(self.model).__name__} does not run with a cache of keys and values: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not kept.new:
            raise CaptureError(
                f"{type(self.model).__name__} stores no keys and values in its cache; CachedModel "
                "needs a model that does"
            )
        return [(state.shape[1], state.shape[3]) for state in kept.new]


def _check_positions(model: nn.Module, positions: int) -> None:
    """Refuses more positions than the model has, or than one of its layers attends to."""
    config: Any = getattr(model, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if positions < 1 or (limit is not None and positions > limit):
        most = "at least 1" if limit is None else f"1 to {limit}, which the model has"
        raise UsageError(f"positions must be {most}, found {positions}")
    window = getattr(config, "sliding_window", None)
    windowed = "sliding_attention" in (
        getattr(config, "layer_types", None) or ["sliding_attention"]
    )
    if window is not None and windowed and positions > window:
        raise UsageError(
            f"positions is {positions}, but layers of the model attend only to the last {window}, "
            "and the mask, which all layers share, cannot hide the others from them; ask for at "
            f"most {window}"
        )


@cache
def _explicit_cache() -> Any:
    """Returns a cache class that takes the old keys and values, and keeps the new ones apart."""
    with OptionalPackage("transformers", "attention", "CachedModel"):
        from transformers.cache_utils import Cache

    class ExplicitCache(Cache):
        """A cache that appends new keys and values to given ones, and stores only the new ones."""

        def __init__(self, cached: tuple[Tensor, ...]):
            super().__init__(layers=[])
            self._cached = cached
            self.new: list[Tensor] = []

        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
        ) -> tuple[Tensor, Tensor]:
            """Returns all keys and values that the layer attends to."""
            if 2 * layer_idx != len(self.new):
                raise ValueError(
                    f"expected the keys and values of layer {len(self.new) // 2}, found those of "
                    f"layer {layer_idx}"
                )
            self.new += [key_states, value_states]
            if not self._cached:
                return key_states, value_states
            keys, values = self._cached[2 * layer_idx : 2 * layer_idx + 2]
            return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)

        def get_seq_length(self, *_: Any, **__: Any) -> int:
            """Returns the number of cached tokens."""
            return self._cached[0].shape[2] if self._cached else 0

        def get_mask_sizes(self, query_length: Any, *_: Any, **__: Any) -> tuple[int, int]:
            """Returns the number of tokens that a mask covers, and the index of the first."""
            length = query_length if isinstance(query_length, int) else len(query_length)
            return self.get_seq_length() + length, 0

    return ExplicitCache
