"""Compiles the kernel of what lies ahead without a GPU; prints shared memory and matrix products.

For heads of 256 in bfloat16, as a launch on a Hopper GPU would.
"""

import sys
from types import SimpleNamespace

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from photomask.attention.kernels import triton_lookahead as module
from photomask.attention.kernels.triton_blocks import Heads, choose_blocks

HOPPER = SimpleNamespace(
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
)


def main() -> None:
    """Compiles; nothing runs."""
    driver.set_active(HOPPER)  # type: ignore[arg-type]
    heads = Heads.of(torch.empty(1, 2, 64, 256, dtype=torch.bfloat16))
    ints, sums = torch.empty(64, dtype=torch.int32), torch.empty(64)
    blocks = choose_blocks(256, torch.bfloat16, 128, 227 << 10)
    kernel = module._look_ahead.warmup(
        *[heads] * 4, sums, 128, 64, module._Table(ints, ints, ints), 2, 0, 0.5,
        GROUP=2, SIZE=256, BLOCK=256, TILE_ROWS=128, ROWS=blocks.rows, KEYS=blocks.keys,
        num_warps=blocks.warps, num_stages=blocks.stages, grid=(1,),
    )  # fmt: skip
    products = kernel.asm["ptx"].count("wgmma.mma_async")
    sys.stdout.write(f"{kernel.metadata.shared} {products}\n")


if __name__ == "__main__":
    main()
