"""Time and memory from a prompt to its first token, dense and sparse."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from photomask.attention.encoding import EncodedPrompt
from photomask.attention.verification.documents import FirstToken, Spread
from photomask.report import Progress

REPEATS = 5
"""Passes of each model, in turn, after one that is not counted."""


def measure_first_token(
    dense: nn.Module, sparse: nn.Module, prompts: Sequence[EncodedPrompt], progress: Progress
) -> FirstToken:
    """Measures both models on the longest prompt, pass by pass in turn.

    Time is that of a whole forward pass with a cache, on a device that has finished before. Memory
    is the most that tensors made during such a pass take at once, beyond weights and inputs: on a
    GPU what its allocator says, elsewhere the sum over the tensors that operators return, without
    what an operator needs inside.

    Args:
        dense: the original.
        sparse: the same with the plan attached.
        prompts: at least one.
        progress: shows how far the work has come.
    """
    longest = max(prompts, key=lambda prompt: prompt.tokens)
    models = (dense, sparse)
    milliseconds: tuple[list[float], list[float]] = ([], [])
    for repeat in progress(range(REPEATS + 1), "time to the first token"):
        for model, found in zip(models, milliseconds, strict=True):
            taken = _seconds(model, longest)
            if repeat:
                found.append(1000 * taken)
    return FirstToken(
        tokens=longest.tokens,
        repeats=REPEATS,
        dense_ms=Spread.of(milliseconds[0]),
        sparse_ms=Spread.of(milliseconds[1]),
        dense_bytes=_peak_bytes(dense, longest),
        sparse_bytes=_peak_bytes(sparse, longest),
    )


def _seconds(model: nn.Module, prompt: EncodedPrompt) -> float:
    _finish(model)
    started = time.perf_counter()
    _prefill(model, prompt)
    _finish(model)
    return time.perf_counter() - started


@torch.inference_mode()
def _prefill(model: nn.Module, prompt: EncodedPrompt) -> None:
    model(**prompt.inputs, use_cache=True, logits_to_keep=1)


def _peak_bytes(model: nn.Module, prompt: EncodedPrompt) -> int:
    """Returns the most bytes that tensors made during a prefill take at once."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        _finish(model)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _prefill(model, prompt)
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveBytes() as live:
        _prefill(model, prompt)
    return live.most


def _finish(model: nn.Module) -> None:
    """Waits until the model's device has nothing left to do."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _LiveBytes(TorchDispatchMode):
    """Adds up the memory of the tensors that operators make, while they live.

    Attributes:
        most: bytes that lived at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs an operator and counts what it returns, unless that lies in one of its inputs."""
        found = func(*args, **(kwargs or {}))
        known = {_place(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        for each in tree_leaves(found):
            if isinstance(each, Tensor) and _place(each) not in known:
                known.add(_place(each))
                storage = each.untyped_storage()
                self._now += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.most = max(self.most, self._now)
        return found

    def _free(self, size: int) -> None:
        self._now -= size


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
