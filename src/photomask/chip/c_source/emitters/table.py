"""Which emitter writes which operator."""

from photomask.chip.c_source.emitters.convolution import convolution
from photomask.chip.c_source.emitters.elementwise import (
    add,
    clamp,
    interpolate,
    lookup,
    multiply,
)
from photomask.chip.c_source.emitters.moving import (
    concatenate,
    gather,
    pad,
    permute,
    reshape,
    slice_,
)
from photomask.chip.c_source.emitters.products import linear
from photomask.chip.c_source.emitters.reducing import average_pool, matmul, max_pool, sum_
from photomask.chip.c_source.emitters.requantize import requantize
from photomask.chip.c_source.emitters.site import Emitter
from photomask.chip.c_source.emitters.transformers import embedding, normalize, softmax

EMITTERS: dict[str, Emitter] = {
    "add": add,
    "average_pool": average_pool,
    "clamp": clamp,
    "concatenate": concatenate,
    "convolution": convolution,
    "embedding": embedding,
    "gather": gather,
    "interpolate": interpolate,
    "linear": linear,
    "lookup": lookup,
    "matmul": matmul,
    "max_pool": max_pool,
    "multiply": multiply,
    "normalize": normalize,
    "pad": pad,
    "permute": permute,
    "requantize": requantize,
    "reshape": reshape,
    "slice": slice_,
    "softmax": softmax,
    "sum": sum_,
}
"""By the operator's kind. A `constant` has no function: its edge is an array."""

ABSORBING = frozenset(
    {
        "add",
        "average_pool",
        "convolution",
        "interpolate",
        "linear",
        "matmul",
        "multiply",
        "normalize",
        "softmax",
        "sum",
    }
)
"""Operators that requantize each sum at once where nothing else reads the sums."""
