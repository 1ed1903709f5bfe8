"""Which emitter writes which operator."""

from photomask.chip.forms.c.context import Emitter
from photomask.chip.forms.c.convolution import convolution
from photomask.chip.forms.c.elementwise import (
    add,
    clamp,
    interpolate,
    lookup,
    multiply,
)
from photomask.chip.forms.c.moving import (
    concatenate,
    gather,
    pad,
    permute,
    reshape,
    slice_,
)
from photomask.chip.forms.c.pooling import average_pool, matmul, max_pool, sum_
from photomask.chip.forms.c.products import linear
from photomask.chip.forms.c.requantize import requantize
from photomask.chip.forms.c.transformers import embedding, normalize, softmax

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
