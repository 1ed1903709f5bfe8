"""A dense kernel for tests."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class StandIn:
    """A dense kernel in plain PyTorch that knows what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []
        self.gave_log_sums: list[bool] = []

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        output: Tensor | None = None,
        log_sums: Tensor | None = None,
    ) -> Tensor:
        """Computes causal attention."""
        self.calls.append((query, key, value))
        self.gave_log_sums.append(log_sums is not None)
        rows, keys = query.shape[2], key.shape[2]
        mask = torch.ones(rows, keys, dtype=torch.bool, device=query.device).tril(keys - rows)
        if log_sums is not None:
            log_sums.copy_(reference_log_sums(query, key, scale))
        result = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scale, enable_gqa=True
        )
        return result if output is None else output.copy_(result)


def reference_log_sums(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Returns the log-sum-exp of the scores of each row up to its own key: float64 [B, H, Q]."""
    rows, keys = query.shape[2], key.shape[2]
    mask = torch.ones(rows, keys, dtype=torch.bool, device=query.device).tril(keys - rows)
    repeated = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = query.double() @ repeated.double().mT * scale
    return scores.masked_fill(~mask, -torch.inf).logsumexp(-1)
