"""The integer operators; everything that must agree about an operator stands in its file."""

from typing import Annotated, get_args

from pydantic import Field

from photomask.chip.operators.add import Add
from photomask.chip.operators.base import Operator, Parameters, Shape, TorchFunction
from photomask.chip.operators.clamp import Clamp
from photomask.chip.operators.concatenate import Concatenate
from photomask.chip.operators.convolution import Convolution
from photomask.chip.operators.embedding import Embedding
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.interpolate import Interpolate
from photomask.chip.operators.linear import Linear
from photomask.chip.operators.lookup import Lookup
from photomask.chip.operators.matmul import Matmul
from photomask.chip.operators.multiply import Multiply
from photomask.chip.operators.normalize import Normalize
from photomask.chip.operators.pooling import AveragePool, MaxPool
from photomask.chip.operators.requantize import Requantize
from photomask.chip.operators.shape import Constant, Gather, Pad, Permute, Reshape, Slice
from photomask.chip.operators.softmax import Softmax
from photomask.chip.operators.sum import Sum
from photomask.chip.operators.work import LaneOperations, MatrixProduct, SpatialAxis

AnyOperator = Annotated[
    Add
    | AveragePool
    | Clamp
    | Concatenate
    | Constant
    | Convolution
    | Embedding
    | Gather
    | Interpolate
    | Linear
    | Lookup
    | Matmul
    | MaxPool
    | Multiply
    | Normalize
    | Pad
    | Permute
    | Requantize
    | Reshape
    | Slice
    | Softmax
    | Sum,
    Field(discriminator="kind"),
]
"""Any integer operator. In JSON, the field `kind` names the operator."""

OPERATORS: tuple[type[Operator], ...] = get_args(get_args(AnyOperator)[0])
"""The class of every integer operator, in alphabetical order."""

__all__ = [
    "OPERATORS",
    "Add",
    "AnyOperator",
    "AveragePool",
    "Clamp",
    "Concatenate",
    "Constant",
    "Convolution",
    "Embedding",
    "Family",
    "Gather",
    "Interpolate",
    "LaneOperations",
    "Linear",
    "Lookup",
    "Matmul",
    "MatrixProduct",
    "MaxPool",
    "Multiply",
    "Normalize",
    "Operator",
    "Pad",
    "Parameters",
    "Permute",
    "Requantize",
    "Reshape",
    "Scaling",
    "Shape",
    "Slice",
    "Softmax",
    "SpatialAxis",
    "Sum",
    "TorchFunction",
]
