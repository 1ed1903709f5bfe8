"""Compiles the Hopper kernel without a GPU; prints its shared memory and its matrix products."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from photomask.attention.kernels.hopper import prefill


def main(head_size: int) -> None:
    """Compiles for a head size and bfloat16."""
    keys, stages = prefill.BLOCKS[head_size]
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
    block = f"tensordesc<bf16[1,1,{keys},{head_size}],{layout!r}>"
    constants = {"GROUP": 7, "SIZE": head_size, "KEYS": keys, "STAGES": stages}
    types = {
        "query": prefill._Heads("*bf16", "i64", "i64", "i64"),
        "output": prefill._Heads("*bf16", "i64", "i64", "i64"),
        "table": prefill._Table(*["*i32"] * 5),
        "codes": "*i8",
        "heads": "*i32",
        "taken": "*i32",
        "scale": "fp32",
        **dict.fromkeys(["key", "value", "listed_key", "listed_value"], block),
        **dict.fromkeys(constants, "constexpr"),
    }
    names = prefill._prefill.arg_names
    signature = {name: types.get(name, "i32") for name in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = GluonASTSource(prefill._prefill, signature, values)
    kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    products = kernel.asm["ptx"].count("wgmma.mma_async")
    sys.stdout.write(f"{kernel.metadata.shared} {products}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
