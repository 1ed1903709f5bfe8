"""One emitter for every operator: from a step to the body of its function."""

from photomask.chip.c_source.emitters.convolution import convolution
from photomask.chip.c_source.emitters.elementwise import add, clamp, lookup, multiply
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
from photomask.chip.c_source.emitters.requantize import requantize, with_rescale
from photomask.chip.c_source.emitters.site import Emitter, Site, Store
from photomask.chip.c_source.emitters.transformers import embedding, normalize, softmax

EMITTERS: dict[str, Emitter] = {
    "add": add,
    "average_pool": average_pool,
    "clamp": clamp,
    "concatenate": concatenate,
    "convolution": convolution,
    "embedding": embedding,
    "gather": gather,
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
        "linear",
        "matmul",
        "multiply",
        "normalize",
        "softmax",
        "sum",
    }
)
"""Operators that requantize each sum at once where nothing else reads the sums."""

__all__ = ["ABSORBING", "EMITTERS", "Emitter", "Site", "Store", "with_rescale"]
