"""Checks of the arguments that every executor of sparse prefill takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from photomask.attention.kernels.heads import LayerHeads
from photomask.attention.schedule import Schedule
from photomask.errors import DataError, UsageError

KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
LARGEST_HEAD = 256


def check_arguments(
    query: Tensor, key: Tensor, value: Tensor, schedule: Schedule, heads: LayerHeads, scale: float
) -> None:
    """Checks shapes, dtypes and devices without waiting for the device.

    Args:
        query: the queries, [B, H, Q, D].
        key: the keys, [B, G, K, D].
        value: the values, [B, G, K, D].
        schedule: the schedule of the prompts.
        heads: the heads of the layer.
        scale: the factor of the scores.

    Raises:
        DataError: the tensors do not fit each other, the heads or the schedule.
        UsageError: a gradient is required, or the scale is not a positive number.
    """
    if query.ndim != 4 or key.ndim != 4 or key.shape != value.shape:
        raise DataError(
            "query must be [B, H, Q, D], key and value [B, G, K, D], got "
            f"{list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )
    batch, query_heads, queries, head_size = query.shape
    if key.shape[0] != batch or key.shape[3] != head_size or query_heads % max(key.shape[1], 1):
        raise DataError(
            f"query {list(query.shape)} and key {list(key.shape)} must have the same batch and "
            "head size, and the number of key heads must divide the number of query heads"
        )
    planned = (schedule.batch, schedule.queries)
    if planned != (batch, queries) or key.shape[2] < schedule.keys:
        raise DataError(
            f"the schedule is for {schedule.batch} prompts, {schedule.queries} queries and "
            f"{schedule.keys} keys, got {batch}, {queries} and {key.shape[2]}"
        )
    if (len(heads.patterns), heads.key_heads) != (query_heads, key.shape[1]):
        raise DataError(
            f"the patterns are those of {len(heads.patterns)} heads over {heads.key_heads} key "
            f"heads, got {query_heads} over {key.shape[1]}"
        )
    if not query.dtype == key.dtype == value.dtype or not query.is_floating_point():
        raise DataError(
            f"query, key and value must share a floating-point dtype, got {query.dtype}, "
            f"{key.dtype} and {value.dtype}"
        )
    devices = {each.device for each in (query, key, value, heads.codes, schedule.rows)}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise DataError(f"tensors, patterns and schedule must be on one device, got {names}")
    if torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value)):
        raise UsageError(
            "sparse prefill has no backward pass; call it under torch.no_grad() or "
            "torch.inference_mode()"
        )
    if not (scale > 0 and math.isfinite(scale)):
        raise UsageError(f"scale must be a positive number, got {scale}")


def check_kernel_arguments(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Checks what the kernels on a GPU require beyond the requirements of plain PyTorch.

    Args:
        query: the queries, [B, H, Q, D].
        key: the keys, [B, G, K, D].
        value: the values, [B, G, K, D].

    Raises:
        DataError: the kernels do not take the dtype, the head size or a stride.
    """
    if query.dtype not in KERNEL_DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in KERNEL_DTYPES)
        raise DataError(f"sparse prefill on a GPU takes {names}, got {query.dtype}")
    if query.shape[3] > LARGEST_HEAD:
        raise DataError(f"the head size must be at most {LARGEST_HEAD}, got {query.shape[3]}")
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.stride(3) != 1:
            raise DataError(
                f"the last dimension of {name} must be contiguous, but its stride is "
                f"{tensor.stride(3)}; call .contiguous()"
            )
