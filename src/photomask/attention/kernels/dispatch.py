"""Chooses the executor for a device, and the kernel for each head."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from photomask.attention.kernels.arguments import check_arguments, check_kernel_arguments
from photomask.attention.kernels.dense_heads import (
    DenseHeads,
    DenseKernel,
    LookAhead,
    attend_dense,
    choose_dense_kernel,
    stream_aside,
)
from photomask.attention.kernels.heads import LayerHeads
from photomask.attention.kernels.torch_prefill import torch_prefill
from photomask.attention.schedule import Schedule
from photomask.dependencies import OptionalPackage
from photomask.errors import UsageError

_LOG = logging.getLogger(__name__)

Executor = Literal["auto", "triton", "torch"]
"""The name of an executor, which computes a layer.

- `auto` is the fastest executor of the device. On a GPU, a dense kernel computes the dense heads if
  there is one for them, and a sparse kernel computes the other heads. The sparse kernel is the one
  for Hopper if it takes the tensors. On a CPU, plain PyTorch computes all heads.
- `triton` computes every head by the Triton kernel that runs on all supported GPUs.
- `torch` is plain PyTorch on any device. On a GPU it is slow, and it waits for the device.
"""

LEAST_CAPABILITY = (8, 0)
"""The compute capability of the oldest CUDA devices that the kernels support."""


class SparseKernel(Protocol):
    """The interface of a kernel that computes some heads over a schedule into given memory."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        schedule: Schedule,
        codes: Tensor,
        heads: Tensor,
        scale: float,
        output: Tensor,
    ) -> None:
        """Writes all rows of the listed heads. `triton_prefill` describes the arguments."""
        ...


def prefill_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    schedule: Schedule,
    heads: LayerHeads,
    scale: float,
    *,
    executor: Executor = "auto",
    ran: list[str] | None = None,
    dense_kernel: DenseKernel | None = None,
) -> Tensor:
    """Computes the attention of all heads of a layer, each head by its own pattern.

    The result is `softmax(scale * Q Kᵀ) V` over the pairs that `visible` defines for the pattern of
    a head. On a GPU, the kernels do not wait for the device, and their launches can be captured in
    a CUDA graph once each of them has run.

    Args:
        query: the queries, [B, H, Q, D], which are the last Q tokens of the layout. The last stride
            is 1, and the others are arbitrary.
        key: the keys, [B, G, K, D], with the same rule for strides. H is a multiple of G, and head
            h reads key head h // (H / G). A static cache may have more keys than the schedule;
            those are not read.
        value: the values, [B, G, K, D].
        schedule: the schedule of the prompts, on the device of the tensors.
        heads: the heads of the layer, on the same device.
        scale: the factor of the scores, above 0.
        executor: the executor.
        ran: a list to which the names of the functions that compute heads are appended; None if
            nobody asks.
        dense_kernel: what `auto` takes for dense heads on a GPU; None lets it choose.

    Returns:
        The output, [B, H, Q, D], in the dtype of the query. The rows of padding are zero.

    Raises:
        DataError: the tensors do not fit each other, the schedule or the executor.
        UsageError: a gradient is required, the scale is not a positive number, or the executor does
            not exist or does not run on the device.
        MissingDependencyError: the device needs Triton, which is not installed.
    """
    check_arguments(query, key, value, schedule, heads, scale)
    ran = [] if ran is None else ran
    if choose_executor(executor, query.device) == "torch":
        _LOG.debug("plain PyTorch computes a layer of %d heads", query.shape[1])
        ran.append(torch_prefill.__name__)
        return torch_prefill(query, key, value, schedule, heads.patterns, scale)
    check_kernel_arguments(query, key, value)
    if executor == "auto":
        sparse_kernel = choose_sparse_kernel(query, key, value, schedule)
        choose = choose_dense_kernel if dense_kernel is None else lambda *_: dense_kernel
    else:
        sparse_kernel, choose = _triton_kernel(), _no_dense_kernel
    _LOG.debug("%s computes a layer of %d heads", sparse_kernel, query.shape[1])
    with torch.cuda.device(query.device):  # kernels start on the thread's current device
        return run_kernels(query, key, value, schedule, heads, scale, sparse_kernel, choose, ran)


def choose_sparse_kernel(
    query: Tensor, key: Tensor, value: Tensor, schedule: Schedule
) -> SparseKernel:
    """Returns the fastest sparse kernel that takes some tensors on a GPU.

    Args:
        query: the queries, [B, H, Q, D].
        key: the keys, [B, G, K, D].
        value: the values, [B, G, K, D].
        schedule: the schedule of the prompts.
    """
    if torch.version.hip is None and torch.cuda.get_device_capability(query.device) == (9, 0):
        from photomask.attention.kernels.hopper import hopper_prefill, hopper_takes

        if hopper_takes(query, key, value, schedule):
            return hopper_prefill
    return _triton_kernel()


def _triton_kernel() -> SparseKernel:
    # Triton is optional and slow to import.
    from photomask.attention.kernels.triton_prefill import triton_prefill

    return triton_prefill


def _look_ahead_kernel() -> LookAhead:
    # Triton is optional and slow to import.
    from photomask.attention.kernels.triton_lookahead import triton_look_ahead

    return triton_look_ahead


def run_kernels(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    schedule: Schedule,
    heads: LayerHeads,
    scale: float,
    sparse_kernel: SparseKernel,
    choose_dense: Callable[[Tensor, Tensor, Tensor], DenseKernel | None],
    ran: list[str],
) -> Tensor:
    """Distributes the heads of a layer to kernels. The contract is that of `prefill_attention`.

    Args:
        query: the queries, [B, H, Q, D].
        key: the keys, [B, G, K, D].
        value: the values, [B, G, K, D].
        schedule: the schedule of the prompts.
        heads: the heads of the layer.
        scale: the factor of the scores.
        sparse_kernel: the kernel for all heads that no dense kernel computes.
        choose_dense: a function that returns the dense kernel for query, key and value, or None. It
            is called only if there are dense heads, and if these see either exactly the keys up to
            a row's own position, or those and the later tokens of the row's own image.
        ran: a list to which the names of the kernels are appended.
    """
    dense_kernel, known = None, (key[:, :, : schedule.keys], value[:, :, : schedule.keys])
    causal = schedule.plainly_causal or schedule.causal_and_ahead
    if heads.dense_calls and causal and query.numel():
        dense_kernel = choose_dense(query, *known)
    if dense_kernel is None:
        output = torch.empty_like(query)
        sparse_kernel(query, key, value, schedule, heads.codes, heads.every, scale, output)
        ran.append(_name(sparse_kernel))
        return output
    look_ahead = _look_ahead_kernel() if schedule.causal_and_ahead else None
    ran += [_name(each) for each in (dense_kernel, look_ahead) if each is not None]
    dense = DenseHeads(dense_kernel, look_ahead)
    if heads.all_in_one_dense_call:
        return dense(query, *known, schedule, scale)
    output = torch.empty_like(query)
    with stream_aside(query.device) as aside:
        attend_dense(query, *known, schedule, heads.dense_calls, scale, dense, output, aside)
        sparse_kernel(query, key, value, schedule, heads.codes, heads.sparse, scale, output)
        ran.append(_name(sparse_kernel))
    return output


def _name(kernel: object) -> str:
    """Returns the name of a kernel's function."""
    return getattr(kernel, "__name__", type(kernel).__name__)


def _no_dense_kernel(query: Tensor, key: Tensor, value: Tensor) -> None:
    del query, key, value


def check_executor(executor: str) -> None:
    """Raises UsageError unless there is an executor with this name."""
    if executor not in get_args(Executor):
        names = ", ".join(map(repr, get_args(Executor)))
        raise UsageError(f"executor must be one of {names}, got {executor!r}")


@cache
def choose_executor(executor: Executor, device: torch.device) -> Literal["kernels", "torch"]:
    """Returns whether kernels or plain PyTorch run on a device.

    Args:
        executor: the executor that was requested.
        device: the device of the tensors.

    Raises:
        UsageError: there is no such executor, or it does not run on the device.
        MissingDependencyError: the device needs Triton, which is not installed.
    """
    check_executor(executor)
    if executor == "torch" or (executor == "auto" and device.type == "cpu"):
        return "torch"
    if device.type != "cuda":
        raise UsageError(
            f"the kernels of sparse prefill run on CUDA and ROCm devices, not on {device.type!r}; "
            "executor='torch' runs it there in plain PyTorch, slowly"
        )
    if torch.version.hip is None:
        name = torch.cuda.get_device_name(device)
        check_capability(name, torch.cuda.get_device_capability(device))
    purpose = "sparse prefill on a GPU, unless executor='torch' asks for slow plain PyTorch,"
    with OptionalPackage("triton", "'triton>=3.6'", purpose):
        importlib.import_module("triton")
    return "kernels"


def check_capability(name: str, capability: tuple[int, int]) -> None:
    """Checks that a CUDA device is new enough for the kernels.

    Args:
        name: the name of the device.
        capability: the compute capability of the device.

    Raises:
        UsageError: the compute capability is below `LEAST_CAPABILITY`.
    """
    if capability < LEAST_CAPABILITY:
        needed, found = (".".join(map(str, each)) for each in (LEAST_CAPABILITY, capability))
        raise UsageError(
            f"the kernels of sparse prefill need compute capability {needed}, and {name} has "
            f"{found}; executor='torch' runs it there in plain PyTorch, slowly"
        )
