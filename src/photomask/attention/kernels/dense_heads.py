"""Computes dense heads by the fastest dense kernel that is available.

If dense heads are causal, a kernel for causal attention alone is faster than one that reads a
schedule. This is FlashAttention-4 if it is installed and takes the tensors, and otherwise cuDNN if
that takes them. If the tokens of an image also see each other in both directions, a second kernel
continues from the result. The kernel is chosen on the host before anything is launched, and no
kernel is tried out.

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
    """The interface of causal attention, where the Q queries are the last of the K keys."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        output: Tensor | None = None,
        log_sums: Tensor | None = None,
    ) -> Tensor:
        """Computes the attention of some heads.

        Args:
            query: the queries, [B, H, Q, D].
            key: the keys, [B, G, K, D].
            value: the values, [B, G, K, D].
            scale: the factor of the scores.
            output: a tensor for the result, or None.
            log_sums: a contiguous tensor, float32 [B, H, Q], for the logarithm of the sum of
                `exp(scale * score)` of each row, or None.

        Returns:
            The result [B, H, Q, D]: `output`, or a new tensor if `output` is None.
        """
        ...


class LookAhead(Protocol):
    """The interface of a kernel that adds the later tokens of a row's own image."""

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
        """Replaces the rows of `output` that see later tokens; see `triton_look_ahead`."""
        ...


@dataclass(frozen=True)
class DenseHeads:
    """The kernels that compute dense heads.

    Attributes:
        kernel: the kernel for the keys up to a row's own position.
        look_ahead: the kernel for the keys behind a row's own position; None if no row sees any.
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
        """Computes dense heads from query [B, H, Q, D], key and value [B, G, K, D].

        Returns:
            The result [B, H, Q, D]: `output`, or a new tensor if `output` is None.
        """
        if self.look_ahead is None:
            return self.kernel(query, key, value, scale, output)
        log_sums = query.new_empty(query.shape[:3], dtype=torch.float32)
        output = self.kernel(query, key, value, scale, output, log_sums)
        self.look_ahead(query, key, value, schedule, scale, output, log_sums)
        return output


def choose_dense_kernel(query: Tensor, key: Tensor, value: Tensor) -> DenseKernel | None:
    """Returns the fastest dense kernel that takes some tensors on a GPU, or None.

    Args:
        query: the queries, [B, H, Q, D].
        key: the keys, [B, G, K, D], cut to the keys of the schedule.
        value: the values, [B, G, K, D].
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
        query: the queries, [B, H, Q, D].
        key: the keys, [B, G, K, D], cut to the keys of the schedule.
        value: the values, [B, G, K, D].
        schedule: the schedule of the prompts.
        calls: the calls, which name the heads and the key heads that they read.
        scale: the factor of the scores.
        compute: the kernels that compute a call.
        output: the tensor for the result, [B, H, Q, D]. Other heads stay as they are.
        aside: a context in which every second call is launched, so that a call does not wait for
            the last programs of the call before it.
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
        A context whose launches go to the second stream. It may be entered any number of times, and
        it has no effect on devices other than CUDA.
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
    """Computes causal attention by cuDNN, through PyTorch. Q must equal K."""
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
    """Computes causal attention by FlashAttention-4. The last query sees the last key."""
    swapped = (tensor.transpose(1, 2) for tensor in (query, key, value))
    out = None if output is None else output.transpose(1, 2)
    result, *_ = _flash4()(*swapped, softmax_scale=scale, causal=True, out=out, lse=log_sums)
    return result.transpose(1, 2)


def flash4_takes(capability: tuple[int, int], dtype: torch.dtype, head_size: int) -> bool:
    """Returns whether FlashAttention-4 has a fast kernel for a device and its tensors.

    Args:
        capability: the compute capability of the device.
        dtype: the dtype of query, key and value.
        head_size: the head size, D.
    """
    sizes = head_size % 8 == 0 and (8 <= head_size <= 128 or head_size == 256)
    return capability[0] in (9, 10) and dtype in (torch.float16, torch.bfloat16) and sizes


@cache
def has_flash4() -> bool:
    """Returns whether FlashAttention-4 is installed, without importing it."""
    if importlib.util.find_spec("flash_attn") is None:
        return False
    return importlib.util.find_spec("flash_attn.cute") is not None


@cache
def _flash4() -> Any:
    """Imports FlashAttention-4, which takes seconds, and returns its forward function.

    The public function cannot write into given memory, but the function that it calls can.
    """
    from flash_attn.cute.interface import (  # pyright: ignore[reportMissingImports]
        _flash_attn_fwd,
    )

    return _flash_attn_fwd
