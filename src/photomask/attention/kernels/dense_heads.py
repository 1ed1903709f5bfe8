"""Heads that see all that comes before them, by the fastest dense kernel that there is.

Where dense heads see plain causality, a kernel written for that alone beats one that reads a
schedule: on Hopper FlashAttention-4 if it is installed, else cuDNN. Where images are seen in both
directions too, another kernel goes on from what it leaves. Which kernel takes the tensors is asked
on the host, before anything is launched; no kernel is tried out.

Source: FlashAttention-4, `flash_attn.cute` of https://github.com/Dao-AILab/flash-attention.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from photomask.attention.kernels.heads import DenseCall
from photomask.attention.schedule import Schedule


class DenseKernel(Protocol):
    """Causal attention of Q queries that are the last of K keys."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        output: Tensor | None = None,
        log_sums: Tensor | None = None,
    ) -> Tensor:
        """Computes [B, H, Q, D] of query [B, H, Q, D], key and value [B, G, K, D].

        Args:
            query: of some heads.
            key: what they read.
            value: likewise.
            scale: factor of the scores.
            output: where the result is written.
            log_sums: float32 [B, H, Q], contiguous; where the logarithm of the sum of
                `exp(scale * score)` of each row is written.

        Returns:
            `output`, or a new tensor if it is None.
        """
        ...


class LookAhead(Protocol):
    """Goes on from plain causality to the later tokens of a row's own image."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        schedule: Schedule,
        scale: float,
        output: Tensor,
        log_sums: Tensor,
    ) -> None:
        """Replaces the rows of `output` that look ahead; see `triton_look_ahead`."""
        ...


@dataclass(frozen=True)
class DenseHeads:
    """Who computes heads that are all dense.

    Attributes:
        kernel: what they see up to a row's own position.
        look_ahead: what they see behind it; None if that is nothing.
    """

    kernel: DenseKernel
    look_ahead: LookAhead | None

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        schedule: Schedule,
        scale: float,
        output: Tensor | None = None,
    ) -> Tensor:
        """Computes [B, H, Q, D] of query [B, H, Q, D], key and value [B, G, K, D].

        Returns:
            `output`, or a new tensor if it is None.
        """
        if self.look_ahead is None:
            return self.kernel(query, key, value, scale, output)
        log_sums = query.new_empty(query.shape[:3], dtype=torch.float32)
        output = self.kernel(query, key, value, scale, output, log_sums)
        self.look_ahead(query, key, value, schedule, scale, output, log_sums)
        return output


def choose_dense_kernel(query: Tensor, key: Tensor, value: Tensor) -> DenseKernel | None:
    """Returns the fastest dense kernel that takes tensors on a GPU; None if there is none.

    Args:
        query: [B, H, Q, D].
        key: [B, G, K, D], cut to the keys of the schedule.
        value: [B, G, K, D].
    """
    if torch.version.hip is not None:
        return None
    capability = torch.cuda.get_device_capability(query.device)
    if flash4_takes(capability, query.dtype, query.shape[3]) and has_flash4():
        return flash4
    # PyTorch aligns the mask of cuDNN with the first key, not with the last.
    if query.shape[2] == key.shape[2] and can_use_cudnn_attention(
        SDPAParams(query, key, value, None, 0.0, True, True)
    ):
        return cudnn
    return None


def attend_dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    schedule: Schedule,
    calls: Sequence[DenseCall],
    scale: float,
    compute: DenseHeads,
    output: Tensor,
    aside: AbstractContextManager[object],
) -> None:
    """Computes some heads by a dense kernel, call by call, on views of the tensors.

    Args:
        query: [B, H, Q, D].
        key: [B, G, K, D], cut to the keys of the schedule.
        value: [B, G, K, D].
        schedule: of the prompts.
        calls: which heads, and whose keys they read.
        scale: factor of the scores.
        compute: computes a call, on one stream.
        output: [B, H, Q, D]; other heads stay as they are.
        aside: every second call is launched in it, so that none waits for the last programs of the
            one before.
    """
    for number, call in enumerate(calls):
        some, owners = call.heads, call.key_heads
        with aside if number % 2 else nullcontext():
            known = (key[:, owners], value[:, owners])
            compute(query[:, some], *known, schedule, scale, output[:, some])


@contextmanager
def stream_aside(device: torch.device) -> Iterator[AbstractContextManager[object]]:
    """Opens a second stream beside the current one of a device, and joins both at the end.

    Yields:
        A context, to be entered any number of times, whose launches go to the second stream; one
        without effect where there are no streams.
    """
    if device.type != "cuda":
        yield nullcontext()
        return
    current, second = torch.cuda.current_stream(device), _second_stream(device)
    second.wait_stream(current)
    try:
        yield torch.cuda.stream(second)
    finally:
        current.wait_stream(second)


@cache
def _second_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def cudnn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    output: Tensor | None = None,
    log_sums: Tensor | None = None,
) -> Tensor:
    """Runs cuDNN through PyTorch; Q must be K."""
    if log_sums is not None:  # the public function does not return them
        result, sums, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
            query, key, value, None, True, is_causal=True, scale=scale
        )
        log_sums.copy_(sums.view_as(log_sums))
        return result if output is None else output.copy_(result)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        result = scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=True
        )
    return result if output is None else output.copy_(result)


def flash4(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    output: Tensor | None = None,
    log_sums: Tensor | None = None,
) -> Tensor:
    """Runs FlashAttention-4, which aligns queries with the last key."""
    swapped = (tensor.transpose(1, 2) for tensor in (query, key, value))
    out = None if output is None else output.transpose(1, 2)
    result, *_ = _flash4()(*swapped, softmax_scale=scale, causal=True, out=out, lse=log_sums)
    return result.transpose(1, 2)


def flash4_takes(capability: tuple[int, int], dtype: torch.dtype, head_size: int) -> bool:
    """Tells whether FlashAttention-4 has a kernel, and a fast one, for a device and its tensors.

    Args:
        capability: compute capability of the device.
        dtype: of query, key and value.
        head_size: D.
    """
    sizes = head_size % 8 == 0 and (8 <= head_size <= 128 or head_size == 256)
    return capability[0] in (9, 10) and dtype in (torch.float16, torch.bfloat16) and sizes


@cache
def has_flash4() -> bool:
    """Tells whether FlashAttention-4 is installed, without importing it."""
    if importlib.util.find_spec("flash_attn") is None:
        return False
    return importlib.util.find_spec("flash_attn.cute") is not None


@cache
def _flash4() -> Any:
    """Imports FlashAttention-4, which takes seconds.

    Its public function cannot write into memory that is given; what it calls can.
    """
    from flash_attn.cute.interface import (  # pyright: ignore[reportMissingImports]
        _flash_attn_fwd,
    )

    return _flash_attn_fwd
