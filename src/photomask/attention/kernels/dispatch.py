"""Which executor runs where, and which of its kernels computes which head."""

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
"""Who computes a layer.

- `auto`: the fastest there is. On a GPU dense heads go to a dense kernel where one takes them, the
  others to a sparse kernel, that for Hopper where it takes them; on a processor everything to plain
  PyTorch.
- `triton`: the Triton kernel for all GPUs alone computes every head.
- `torch`: plain PyTorch, wherever the tensors are; on a GPU slow, and it waits for the device.
"""

LEAST_CAPABILITY = (8, 0)
"""Compute capability of the oldest CUDA devices that the kernels are written for."""


class SparseKernel(Protocol):
    """Computes some heads over a schedule, into memory that is given."""

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
        """Writes all rows of the listed heads; see `triton_prefill`."""
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
) -> Tensor:
    """Computes attention of all heads of a layer, each by its own pattern.

    `softmax(scale * Q Kᵀ) V` over the pairs that `visible` defines for the pattern of a head. On a
    GPU nothing waits for the device, and the launches can be captured in a CUDA graph once each of
    them has run.

    Args:
        query: [B, H, Q, D], the last Q tokens of the layout; any strides if the last is 1.
        key: [B, G, K, D], likewise; H is a multiple of G, and head h reads the keys of
            h // (H / G). Keys behind those of the schedule, as a static cache has them, are not
            read.
        value: [B, G, K, D].
        schedule: of the prompts, on the device of the tensors.
        heads: of the layer, on the same device.
        scale: factor of the scores, above 0.
        executor: who computes them.

    Returns:
        [B, H, Q, D] in the dtype of the query; the rows of padding are zero.

    Raises:
        DataError: tensors that do not fit each other, the schedule or the executor.
        UsageError: a gradient is wanted, the scale is not a positive number, or the executor does
            not run on the device.
        MissingDependencyError: the device needs Triton, which is not installed.
    """
    check_arguments(query, key, value, schedule, heads, scale)
    if choose_executor(executor, query.device) == "torch":
        _LOG.debug("plain PyTorch computes a layer of %d heads", query.shape[1])
        return torch_prefill(query, key, value, schedule, heads.patterns, scale)
    check_kernel_arguments(query, key, value)
    if executor == "auto":
        sparse_kernel = choose_sparse_kernel(query, key, value, schedule)
        choose = choose_dense_kernel
    else:
        sparse_kernel, choose = _triton_kernel(), _no_dense_kernel
    _LOG.debug("%s computes a layer of %d heads", sparse_kernel, query.shape[1])
    with torch.cuda.device(query.device):  # kernels are launched where the thread is, not the data
        return run_kernels(query, key, value, schedule, heads, scale, sparse_kernel, choose)


def choose_sparse_kernel(
    query: Tensor, key: Tensor, value: Tensor, schedule: Schedule
) -> SparseKernel:
    """Returns the fastest sparse kernel that takes tensors on a GPU.

    Args:
        query: [B, H, Q, D].
        key: [B, G, K, D].
        value: [B, G, K, D].
        schedule: of the prompts.
    """
    if torch.version.hip is None and torch.cuda.get_device_capability(query.device) == (9, 0):
        from photomask.attention.kernels.hopper import hopper_prefill, hopper_takes

        if hopper_takes(query, key, value, schedule):
            return hopper_prefill
    return _triton_kernel()


def _triton_kernel() -> SparseKernel:
    from photomask.attention.kernels.triton_prefill import triton_prefill  # optional, and slow

    return triton_prefill


def _look_ahead_kernel() -> LookAhead:
    from photomask.attention.kernels.triton_lookahead import triton_look_ahead  # likewise

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
) -> Tensor:
    """Shares the heads of a layer out among kernels; the contract is that of `prefill_attention`.

    Args:
        query: [B, H, Q, D].
        key: [B, G, K, D].
        value: [B, G, K, D].
        schedule: of the prompts.
        heads: of the layer.
        scale: factor of the scores.
        sparse_kernel: computes what no dense kernel does.
        choose_dense: returns the dense kernel for query, key and value, or None. It is asked only
            if there are dense heads and they see plain causality, or that and the later tokens of
            a row's own image.
    """
    dense_kernel, known = None, (key[:, :, : schedule.keys], value[:, :, : schedule.keys])
    causal = schedule.plainly_causal or schedule.causal_and_ahead
    if heads.dense_calls and causal and query.numel():
        dense_kernel = choose_dense(query, *known)
    if dense_kernel is None:
        output = torch.empty_like(query)
        sparse_kernel(query, key, value, schedule, heads.codes, heads.every, scale, output)
        return output
    look_ahead = _look_ahead_kernel() if schedule.causal_and_ahead else None
    dense = DenseHeads(dense_kernel, look_ahead)
    if heads.all_in_one_dense_call:
        return dense(query, *known, schedule, scale)
    output = torch.empty_like(query)
    with stream_aside(query.device) as aside:
        attend_dense(query, *known, schedule, heads.dense_calls, scale, dense, output, aside)
        sparse_kernel(query, key, value, schedule, heads.codes, heads.sparse, scale, output)
    return output


def _no_dense_kernel(query: Tensor, key: Tensor, value: Tensor) -> None:
    del query, key, value


def check_executor(executor: str) -> None:
    """Raises `UsageError` unless there is an executor of that name."""
    if executor not in get_args(Executor):
        names = ", ".join(map(repr, get_args(Executor)))
        raise UsageError(f"executor must be one of {names}, got {executor!r}")


@cache
def choose_executor(executor: Executor, device: torch.device) -> Literal["kernels", "torch"]:
    """Decides whether kernels or plain PyTorch run on a device.

    Args:
        executor: what was asked for.
        device: of the tensors.

    Raises:
        UsageError: no such executor, or it does not run on the device.
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
    """Refuses CUDA devices that are too old.

    Args:
        name: of the device.
        capability: compute capability.

    Raises:
        UsageError: older than `LEAST_CAPABILITY`.
    """
    if capability < LEAST_CAPABILITY:
        needed, found = (".".join(map(str, each)) for each in (LEAST_CAPABILITY, capability))
        raise UsageError(
            f"the kernels of sparse prefill need compute capability {needed}, and {name} has "
            f"{found}; executor='torch' runs it there in plain PyTorch, slowly"
        )
