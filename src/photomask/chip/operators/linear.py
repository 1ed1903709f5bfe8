"""The matrix product of the last axis with constant weights."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from photomask.chip.arithmetic import FLOAT64_EXACT, carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import Operator, Parameters, Shape, TorchFunction, require
from photomask.chip.operators.convolution import input_pieces
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.weights import effective_weight, partial_sums
from photomask.chip.operators.work import MatrixProduct, SpatialAxis

MOST_PIECES = 2
"""The most products in float32 that are faster than one in float64; 16-bit inputs need hundreds."""


class Linear(Operator):
    """`accumulator[..., o] = bias[o] + sum_i w[o,i] * x[..., i]`.

    `w` is `(weight - weight_zero_point) * group_multiplier`; both the zero point and the multiplier
    are optional. `bias` includes the correction for the input's zero point.
    """

    kind: Literal["linear"] = "linear"
    parameter_roles: ClassVar[tuple[str, ...]] = ("weight", "bias")
    optional_roles: ClassVar[tuple[str, ...]] = ("weight_zero_point", "group_multiplier")
    learned_roles: ClassVar[tuple[str, ...]] = (*parameter_roles, *optional_roles)
    family: ClassVar[Family] = Family.ROW
    scaling: ClassVar[Scaling] = Scaling.MULTIPLIED
    accumulates: ClassVar[bool] = True

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the shape [..., O]."""
        weight = parameters["weight"]
        require(
            weight.ndim == 2 and weight.shape[1] == shapes[0][-1] and len(shapes[0]) >= 2,
            f"a weight of shape {weight.shape} does not fit an input of shape {shapes[0]}; "
            "expected a weight [outputs, inputs] with the input's last axis as inputs",
        )
        return (*shapes[0][:-1], weight.shape[0])

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the interval of the partial sums of these weights, in any order of summation."""
        return partial_sums(effective_weight(parameters), parameters["bias"], inputs[0])

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes one int64 matrix product."""
        product = np.einsum("...i,oi->...o", inputs[0], effective_weight(parameters))
        return product + parameters["bias"]

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function with few float32 products if they are exact, else one float64 product.

        A float32 product is exact if its partial sums stay below 2**24.
        """
        weight, bias = effective_weight(parameters), parameters["bias"]
        sums = partial_sums(weight, bias, inputs[0])
        if sums.magnitude > FLOAT64_EXACT:
            return self.wrap_oracle(inputs, parameters, device)
        total = carrier(sums)
        pieces = input_pieces(weight, inputs[0])
        dtype = torch.float32
        if pieces is None or len(pieces) > MOST_PIECES or device.type == "cuda":
            pieces, dtype = [slice(None)], torch.float64
        matrices = [
            torch.from_numpy(np.ascontiguousarray(weight[:, piece])).to(device, dtype)
            for piece in pieces
        ]
        offset = torch.from_numpy(bias).to(device, total)

        def run(x: torch.Tensor) -> torch.Tensor:
            x = x.to(dtype)
            products = [
                F.linear(x[..., piece], matrix).to(total)
                for piece, matrix in zip(pieces, matrices, strict=True)
            ]
            return sum(products, start=offset)

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> MatrixProduct:
        """Returns a matrix product in which each row of the input is a position."""
        outputs, inputs = parameters["weight"].shape
        rows = math.prod(shapes[0][:-1])
        return MatrixProduct(
            groups=1,
            channels_out=outputs,
            channels_in=inputs,
            rows=SpatialAxis(1, 1),
            columns=SpatialAxis(rows, rows),
        )
