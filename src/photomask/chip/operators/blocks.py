"""Runs elementwise functions of large activations on a CPU, block by block in the cache."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

from photomask.chip.operators.base import TorchFunction

BLOCK_ELEMENTS = 30_000
"""The number of elements of a block.

It is small enough that float64 temporaries stay in the second-level cache. It is also below the
32,768 elements from which torch uses several threads itself; the workers here need no barriers.
"""


def in_blocks(
    function: TorchFunction, constants: tuple[torch.Tensor, ...], output: torch.dtype
) -> TorchFunction:
    """Returns `x -> function(x, *constants).to(output)`.

    Args:
        function: an elementwise function with constants that broadcast against a sample. Its
            temporaries are wider than `x`.
        constants: tensors of one shape that broadcasts against a sample. Only the shapes [1] and
            [C, 1, …] are computed in blocks.
        output: the dtype of the result.
    """

    def run(x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or x.numel() <= BLOCK_ELEMENTS:
            return function(x, *constants).to(output)
        views = _row_views(x, constants)
        result = torch.empty_like(x, dtype=output)
        written = _row_views(result, constants)
        if views is None or written is None:
            return function(x, *constants).to(output)
        _fill(function, views[0], views[1], written[0])
        return result

    return run


def _row_views(
    x: torch.Tensor, constants: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, list[torch.Tensor]] | None:
    """Returns `x` as rows of memory, and the constants in shapes that broadcast against them."""
    count = constants[0].numel()
    if count > 1 and constants[0].shape != (x.shape[1], *(1,) * (x.ndim - 2)):
        return None
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).view(-1, x.shape[1]), [c.view(1, count) for c in constants]
    if x.ndim > 2 and x.is_contiguous():
        rows = x.view(x.shape[0] * x.shape[1], -1)
        return rows, [c.view(-1, 1).repeat(len(rows) // count, 1) for c in constants]
    return None


def _fill(
    function: TorchFunction, x: torch.Tensor, constants: list[torch.Tensor], result: torch.Tensor
) -> None:
    """Writes `function` of each row of `x` into `result`; the workers share the rows."""
    workers = torch.get_num_threads()
    size = max(1, BLOCK_ELEMENTS // x.shape[1])
    share = -(-len(x) // workers)
    inference = torch.is_inference_mode_enabled()

    def work(first: int) -> None:
        last = min(first + share, len(x))
        with torch.inference_mode(inference):
            for start in range(first, last, size):
                block = slice(start, min(start + size, last))
                local = (c if len(c) == 1 else c[block] for c in constants)
                result[block] = function(x[block], *local)

    if workers == 1:
        work(0)
    else:
        list(_pool(workers).map(work, range(0, len(x), share)))


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="photomask")


os.register_at_fork(after_in_child=_pool.cache_clear)
