"""A causal language model of transformers as a function of tokens and a cache."""

import inspect
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.dependencies import OptionalPackage
from photomask.errors import CaptureError, DataError, UsageError


class CachedModel(nn.Module):
    """One chunk of tokens through a causal language model, its cache among inputs and outputs.

    ```text
    logits, *new = model(tokens, positions, mask, *cached)
    ```

    `tokens` and `positions` are int64 [batch, T]; `mask`, int64 [batch, 1, T, L + T], is 1 where a
    token sees a place of the cache (the first L) or of its chunk; `cached` are keys and values of
    every layer in turn, [batch, heads, L, size], and `new` those of the chunk, [batch, heads, T,
    size]. T and L are those of the inputs it is captured with; whoever calls it appends the new
    keys and values to the cache. Each way of attending that the model's own mask may express, such
    as a window, is replaced by `mask`.

    Attributes:
        model: the model of transformers.
        states: by the name of a cached input, the number of the output that it carries on; as
            `prepare` takes it.
    """

    order: Tensor

    def __init__(self, model: nn.Module, *, positions: int):
        """Wraps a model, which is not changed.

        Args:
            model: takes `input_ids`, `position_ids`, `attention_mask` and `cache` (before
                transformers 5.24 `past_key_values`), and returns `logits`, as every causal language
                model of transformers does.
            positions: how many there are: the longest text.

        Raises:
            MissingDependencyError: transformers is not installed.
            UsageError: fewer than one position, more than the model has, or a window of attention
                that is shorter.
            CaptureError: the model keeps something else than keys and values of every layer.
        """
        super().__init__()
        _check_positions(model, positions)
        self.model = model
        accepted = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in accepted else "past_key_values"
        # Looked up instead of computed with, so that the positions stay integers.
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
        """Returns the inputs of a chunk that nothing precedes: an example, or data to calibrate.

        Args:
            tokens: int64 [batch, T].
            cache_length: L.

        Raises:
            DataError: no tokens [batch, T], or more than there are positions.
            UsageError: the cache is shorter than 1, or longer than there are positions.
        """
        count = len(self.order)
        if tokens.ndim != 2 or tokens.dtype != torch.int64 or not 1 <= tokens.shape[1] <= count:
            raise DataError(
                f"tokens must be int64 [batch, 1 to {count}], got {tokens.dtype} "
                f"{list(tokens.shape)}"
            )
        if not 1 <= cache_length <= count:
            raise UsageError(f"a cache of {cache_length} tokens; 1 to {count} are possible")
        batch, length = tokens.shape
        mask = torch.zeros(batch, 1, length, cache_length + length, dtype=torch.int64)
        mask[..., cache_length:] = torch.ones(length, length, dtype=torch.int64).tril()
        cached = [torch.zeros(batch, heads, cache_length, size) for heads, size in self._shapes]
        return [tokens, torch.arange(length).expand(batch, -1).clone(), mask, *cached]

    def _find_shapes(self) -> list[tuple[int, int]]:
        """Returns heads and size of the keys and the values of each layer, by running a token."""
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
            raise CaptureError(f"{type(self.model).__name__} keeps no keys and values")
        return [(state.shape[1], state.shape[3]) for state in kept.new]


def _check_positions(model: nn.Module, positions: int) -> None:
    """Refuses more positions than the model has, or than one of its layers sees."""
    config: Any = getattr(model, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if positions < 1 or (limit is not None and positions > limit):
        most = "" if limit is None else f" to {limit}, which is what the model has"
        raise UsageError(f"{positions} positions; 1{most} are possible")
    window = getattr(config, "sliding_window", None)
    windowed = "sliding_attention" in (
        getattr(config, "layer_types", None) or ["sliding_attention"]
    )
    if window is not None and windowed and positions > window:
        raise UsageError(
            f"{positions} positions, but layers of the model see the last {window} only; a shared "
            f"mask cannot hide the others from them. Ask for at most {window}"
        )


@cache
def _explicit_cache() -> Any:
    """Returns the class of a cache whose keys and values are given, and whose new ones are kept."""
    with OptionalPackage("transformers", "attention", "CachedModel"):
        from transformers.cache_utils import Cache

    class ExplicitCache(Cache):
        """Joins what is given with what is new, and remembers only the latter."""

        def __init__(self, cached: tuple[Tensor, ...]):
            super().__init__(layers=[])
            self._cached = cached
            self.new: list[Tensor] = []

        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
        ) -> tuple[Tensor, Tensor]:
            """Returns all keys and values that the layer sees."""
            if 2 * layer_idx != len(self.new):
                raise ValueError(f"layer {layer_idx} comes after {len(self.new) // 2} others")
            self.new += [key_states, value_states]
            if not self._cached:
                return key_states, value_states
            keys, values = self._cached[2 * layer_idx : 2 * layer_idx + 2]
            return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)

        def get_seq_length(self, *_: Any, **__: Any) -> int:
            """Returns how many tokens are cached."""
            return self._cached[0].shape[2] if self._cached else 0

        def get_mask_sizes(self, query_length: Any, *_: Any, **__: Any) -> tuple[int, int]:
            """Returns how many tokens a mask covers, and where they start."""
            length = query_length if isinstance(query_length, int) else len(query_length)
            return self.get_seq_length() + length, 0

    return ExplicitCache
