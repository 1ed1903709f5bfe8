"""Defines the float operations of a captured model, with the properties of each.

An operation computes in float. `photomask.chip.conversion` decides which integer operators replace
it.
"""

from photomask.chip.graph.operations.base import (
    Accumulates,
    Constants,
    IntegerUse,
    Operation,
    OutputScale,
)
from photomask.chip.graph.operations.elementwise import (
    Add,
    Clamp,
    Multiply,
    Pointwise,
    PointwiseFunction,
)
from photomask.chip.graph.operations.given import (
    Constant,
    Copy,
    Input,
    Tokens,
)
from photomask.chip.graph.operations.moving import (
    Concatenate,
    Gather,
    Pad,
    Permute,
    Reshape,
    Slice,
)
from photomask.chip.graph.operations.products import (
    ChannelAffine,
    Convolution,
    Linear,
    Matmul,
)
from photomask.chip.graph.operations.reducing import (
    AdaptiveAveragePool,
    AveragePool,
    MaxPool,
    Mean,
)
from photomask.chip.graph.operations.transformers import (
    Embedding,
    Normalize,
    Softmax,
)

__all__ = [
    "Accumulates",
    "AdaptiveAveragePool",
    "Add",
    "AveragePool",
    "ChannelAffine",
    "Clamp",
    "Concatenate",
    "Constant",
    "Constants",
    "Convolution",
    "Copy",
    "Embedding",
    "Gather",
    "Input",
    "IntegerUse",
    "Linear",
    "Matmul",
    "MaxPool",
    "Mean",
    "Multiply",
    "Normalize",
    "Operation",
    "OutputScale",
    "Pad",
    "Permute",
    "Pointwise",
    "PointwiseFunction",
    "Reshape",
    "Slice",
    "Softmax",
    "Tokens",
]
