"""Compiles the kernels of a schedule's tables without a GPU, as a launch on a Hopper GPU would.

Prints how often each was compiled for prompts of several lengths and rules.
"""

import sys
from types import SimpleNamespace

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from photomask.attention import triton_tables as module

HOPPER = SimpleNamespace(
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
)


def main() -> None:
    """Compiles both kernels; tensors stay empty, for nothing runs."""
    driver.set_active(HOPPER)  # type: ignore[arg-type]
    kind, ints = torch.empty(64, dtype=torch.int8), torch.empty(64, dtype=torch.int32)
    compact = torch.empty(64, dtype=torch.int64)
    compiled = {name: set() for name in ("mark", "tabulate")}
    for tokens, shift in ((1, 0), (16, 1), (300_000, 3)):  # of views into longer prompts
        fields = (kind[shift:], *(ints[shift:],) * 3)
        marked = module._mark.warmup(
            *fields, ints, tokens, tokens - 1, 4, 0, TILE_ROWS=128, BLOCK=1024, grid=(1, 1)
        )
        compiled["mark"].add(marked.hash)
        for both in (True, False):
            written = module._tabulate.warmup(
                *fields, ints, compact, ints, ints, ints, compact,
                tokens, 1, tokens, tokens, module._NO_WINDOW, 64, TILE_ROWS=128, BLOCK=512,
                BIDIRECTIONAL=both, SPARES_IMAGE=both, grid=(1, 1),
            )  # fmt: skip
            compiled["tabulate"].add(written.hash)
    sys.stdout.write(" ".join(str(len(hashes)) for hashes in compiled.values()) + "\n")


if __name__ == "__main__":
    main()
