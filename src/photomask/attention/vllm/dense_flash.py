"""Computes the dense heads of requests with images by the server's own FlashAttention.

It computes chunks of a prompt as fast as whole prompts, and needs nothing that vLLM does not bring.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


class ServerFlash:
    """A dense kernel, as `photomask.attention.kernels` takes it, for one prompt at a time.

    Source: `flash_attn_varlen_func` of https://github.com/vllm-project/flash-attention. It aligns
    the causal mask with the last key.
    """

    def __init__(self, function: Callable[..., Any], version: int):
        """Keeps the function.

        Args:
            function: vLLM's `flash_attn_varlen_func`.
            version: the version of FlashAttention that vLLM has chosen for its layers.
        """
        self._function = function
        self._version = version

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        output: Tensor | None = None,
        log_sums: Tensor | None = None,
    ) -> Tensor:
        """Computes the attention of some heads; the arguments are those of `DenseKernel`."""
        asked, known, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        result = self._function(
            q=asked,
            k=known,
            v=values,
            out=None if output is None else output[0].transpose(0, 1),
            cu_seqlens_q=_ends(len(asked), query.device),
            cu_seqlens_k=_ends(len(known), query.device),
            max_seqlen_q=len(asked),
            max_seqlen_k=len(known),
            softmax_scale=scale,
            causal=True,
            fa_version=self._version,
            return_softmax_lse=log_sums is not None,
        )
        if log_sums is not None:
            result, sums = result
            log_sums[0].copy_(sums)
        return result.transpose(0, 1)[None] if output is None else output


@lru_cache(maxsize=256)
def _ends(tokens: int, device: torch.device) -> Tensor:
    """Returns where the only prompt starts and ends: int32 [2]."""
    return torch.tensor([0, tokens], dtype=torch.int32, device=device)
