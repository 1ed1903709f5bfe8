"""Which executor runs where."""

from __future__ import annotations

import importlib.util

from torch import Tensor

from photomask.attention.kernels.arguments import check_arguments
from photomask.attention.kernels.torch_prefill import torch_prefill
from photomask.attention.schedule import Schedule
from photomask.errors import MissingDependencyError


def prefill_attention(
    query: Tensor, key: Tensor, value: Tensor, schedule: Schedule, patterns: Tensor, scale: float
) -> Tensor:
    """Computes attention of all heads of a layer, each by its own pattern.

    `softmax(scale * Q Kᵀ) V` over the pairs that `visible` defines for the pattern of a head. On a
    CUDA or ROCm device the Triton kernel runs, elsewhere plain PyTorch. Dense attention is never
    run in place of either.

    Args:
        query: [B, H, Q, D], the last Q tokens of the layout; any strides if the last is 1.
        key: [B, G, K, D], likewise; H is a multiple of G, and head h reads the keys of
            h // (H / G). Keys behind those of the schedule, as a static cache has them, are not
            read.
        value: [B, G, K, D].
        schedule: of the prompts, on the device of the tensors.
        patterns: int8 [H] of `Pattern` numbers, on the same device. That they are such numbers is
            the caller's word.
        scale: factor of the scores, above 0.

    Returns:
        [B, H, Q, D] in the dtype of the query; the rows of padding are zero.

    Raises:
        DataError: tensors that do not fit each other, the schedule or the executor.
        UsageError: a gradient is wanted, or the scale is not a positive number.
        MissingDependencyError: the device needs Triton, which is not installed.
    """
    check_arguments(query, key, value, schedule, patterns, scale)
    if query.device.type != "cuda":
        return torch_prefill(query, key, value, schedule, patterns, scale)
    if importlib.util.find_spec("triton") is None:
        raise MissingDependencyError("triton", "'triton>=3.6'", "sparse prefill on a GPU")
    from photomask.attention.kernels.triton_prefill import triton_prefill  # optional, and slow

    return triton_prefill(query, key, value, schedule, patterns, scale)
