"""Convolution over one or two spatial axes, also grouped, depthwise, dilated or strided."""

import itertools
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from photomask.chip.arithmetic import FLOAT32_EXACT, FLOAT64_EXACT, carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import (
    Extent,
    Int64,
    Margin,
    Operator,
    Parameters,
    Shape,
    TorchFunction,
    require,
)
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.weights import effective_weight, partial_sums
from photomask.chip.operators.work import MatrixProduct, SpatialAxis


class Convolution(Operator):
    """`accumulator[n,o,p] = bias[o] + sum_{i,k} w[o,i,k] * x[n,i,p*stride + k*dilation - padding]`.

    Outside the input, `x` is `padding_value`, which is the input's zero point. The correction for
    the zero point is therefore one constant per channel, which `bias` includes. `w` is `(weight -
    weight_zero_point) * group_multiplier`; both the zero point and the multiplier are optional.
    """

    kind: Literal["convolution"] = "convolution"
    stride: tuple[Extent, ...]
    padding: tuple[tuple[Margin, Margin], ...]
    """The elements before and after each spatial axis."""
    dilation: tuple[Extent, ...]
    groups: Extent
    padding_value: Int64
    parameter_roles: ClassVar[tuple[str, ...]] = ("weight", "bias")
    optional_roles: ClassVar[tuple[str, ...]] = ("weight_zero_point", "group_multiplier")
    learned_roles: ClassVar[tuple[str, ...]] = (*parameter_roles, *optional_roles)
    family: ClassVar[Family] = Family.MAP
    scaling: ClassVar[Scaling] = Scaling.MULTIPLIED
    accumulates: ClassVar[bool] = True

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the shape [N, O, *spatial]."""
        weight = parameters["weight"]
        require(
            weight.ndim == len(shapes[0]) == len(self.stride) + 2 and weight.ndim in (3, 4),
            f"a weight of shape {weight.shape} does not fit an input of shape {shapes[0]}; "
            f"expected {len(self.stride)} spatial axes in both",
        )
        require(
            shapes[0][1] == weight.shape[1] * self.groups and weight.shape[0] % self.groups == 0,
            f"{self.groups} groups of a weight of shape {weight.shape} do not fit {shapes[0][1]} "
            "input channels",
        )
        spatial = (
            (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
            for size, (before, after), dilation, kernel, stride in zip(
                shapes[0][2:],
                self.padding,
                self.dilation,
                weight.shape[2:],
                self.stride,
                strict=True,
            )
        )
        return (shapes[0][0], weight.shape[0], *spatial)

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the interval of the partial sums of these weights, in any order of summation."""
        x = inputs[0].union(Interval(self.padding_value, self.padding_value))
        return partial_sums(effective_weight(parameters), parameters["bias"], x)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes one kernel position after the other."""
        weight = effective_weight(parameters)
        margins = ((0, 0), (0, 0), *self.padding)
        x = np.pad(inputs[0], margins, constant_values=self.padding_value)
        batch, outputs, *spatial = self.output_shape([inputs[0].shape], parameters)
        grouped = weight.reshape(self.groups, outputs // self.groups, *weight.shape[1:])
        total = np.zeros((batch, self.groups, outputs // self.groups, *spatial), dtype=np.int64)
        for position in itertools.product(*map(range, weight.shape[2:])):
            window = x[(slice(None), slice(None), *self._taps(position, spatial))]
            window = window.reshape(batch, self.groups, weight.shape[1], -1)
            product = np.einsum("goi,ngip->ngop", grouped[(..., *position)], window)
            total += product.reshape(total.shape)
        bias = parameters["bias"].reshape(-1, *(1,) * len(spatial))
        return total.reshape(batch, outputs, *spatial) + bias

    def _taps(self, position: Shape, spatial: Sequence[int]) -> list[slice]:
        return [
            slice(tap * dilation, tap * dilation + (size - 1) * stride + 1, stride)
            for tap, dilation, size, stride in zip(
                position, self.dilation, spatial, self.stride, strict=True
            )
        ]

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a direct convolution in float32, or in float64 where float32 is not exact.

        If partial sums exceed 2**24, the input channels are split into pieces that are exact in
        float32. If that is not possible, the convolution runs in float64. On a GPU it always runs
        in float64 and rounds at the end: cuDNN may choose a transform algorithm there, whose error
        at these magnitudes (below 2**40) is far less than 1/2.
        """
        weight, bias = effective_weight(parameters), parameters["bias"]
        x = inputs[0].union(Interval(self.padding_value, self.padding_value))
        sums = partial_sums(weight, bias, x)
        if sums.magnitude > FLOAT64_EXACT:
            return self.wrap_oracle(inputs, parameters, device)
        on_gpu = device.type == "cuda"
        pieces = None if on_gpu else input_pieces(weight, x)
        if pieces is None or (self.groups > 1 and len(pieces) > 1):
            pieces, dtype = [slice(None)], torch.float64
        elif len(pieces) == 1:
            pieces, dtype = [slice(None)], torch.float32
        else:
            dtype = torch.float32
        total = carrier(sums)
        layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
        kernels = [
            torch.from_numpy(np.ascontiguousarray(weight[:, piece]))
            .to(device, dtype)
            .contiguous(memory_format=layout)
            for piece in pieces
        ]
        # The products may fit float32 although their sum with the bias does not.
        fused = len(pieces) == 1 and dtype in (total, torch.float64)
        last_bias = torch.from_numpy(bias).to(device, dtype if fused else total)

        def run(x: torch.Tensor) -> torch.Tensor:
            x = x.to(dtype)
            if fused:
                result = self._convolve(x, kernels[0], last_bias)
                return (result.round_() if on_gpu else result).to(total)
            start = last_bias.reshape(-1, *(1,) * len(self.stride))
            results = (
                self._convolve(x[:, piece], kernel, None).to(total)
                for piece, kernel in zip(pieces, kernels, strict=True)
            )
            return sum(results, start=start)

        return run

    def _convolve(
        self, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        amount: int | list[int] = 0
        if self.padding_value == 0 and all(before == after for before, after in self.padding):
            amount = [before for before, _ in self.padding]
        else:
            margins = [margin for pair in reversed(self.padding) for margin in pair]
            x = F.pad(x, margins, value=self.padding_value)
        convolve = F.conv2d if len(self.stride) == 2 else F.conv1d
        return convolve(x, kernel, bias, self.stride, amount, self.dilation, self.groups)

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> MatrixProduct:
        """Returns one matrix product for each group."""
        (shape,) = shapes
        output = self.output_shape(shapes, parameters)
        before = tuple(first for first, _ in self.padding)
        kernel = parameters["weight"].shape[2:]
        sizes = (shape[2:], output[2:], kernel, self.stride, self.dilation, before)
        axes = [SpatialAxis(*numbers) for numbers in zip(*sizes, strict=True)]
        return MatrixProduct(
            groups=shape[0] * self.groups,
            channels_out=output[1] // self.groups,
            channels_in=shape[1] // self.groups,
            rows=axes[0] if len(axes) == 2 else SpatialAxis(1, 1),
            columns=axes[-1],
        )


def input_pieces(weight: np.ndarray, x: Interval) -> list[slice] | None:
    """Splits the input axis so that each piece's partial sums are exact in float32.

    Returns:
        Slices of axis 1, or None if the sums of a single input channel are too large.
    """
    no_bias = np.zeros(weight.shape[0], dtype=np.int64)
    count = 1
    while count <= weight.shape[1]:
        size = -(-weight.shape[1] // count)
        pieces = [slice(start, start + size) for start in range(0, weight.shape[1], size)]
        if all(
            partial_sums(weight[:, piece], no_bias, x).magnitude <= FLOAT32_EXACT
            for piece in pieces
        ):
            return pieces
        count *= 2
    return None
