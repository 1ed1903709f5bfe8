"""Normalization of rows: layer norm and root-mean-square norm."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import (
    Extent,
    Int64,
    Operator,
    Parameters,
    Shape,
    TorchFunction,
    require,
)
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations
from photomask.chip.target import Target

SQUARE_BITS = 48
"""A sum of squares is scaled to 47 or 48 bits, so that its root has 24 bits."""
GAIN_BITS = 8
"""The width of a gain's code. Each channel has its own scale, so only the scale is rounded."""
INVERSE_BITS = 47
"""The reciprocal of a root is `2**INVERSE_BITS // root`, which also has 24 bits."""


class Normalize(Operator):
    """`accumulator[..., c] = normal[c] * gain[c] + bias[c]` over the last axis, of `terms`.

    ```text
    x'     = (x - zero_point) << channel_shift      channel_shift: optional, one for each c
    d      = terms * x' - sum(x')  if centred, else x'           exact: no mean is rounded
    v      = sum(d * d) + epsilon
    v'     = v * 4**h, h such that v' has 47 or 48 bits      (v >> -2h where h is negative)
    normal = round(d * (2**47 // isqrt(v')) / 2**(47 - h - f))
    ```

    One unit of `normal` is `sqrt(terms) * 2**-f`, where `f` is `fraction_bits`. The rescaling that
    follows includes the factor `sqrt(terms)`. Root and reciprocal have 24 bits, so that for every
    input `normal` is within `1/2 + 2**(f - 21)` units of `2**f * d / sqrt(v)`. Halves are rounded
    up.

    Source: integer square roots in layer norms come from I-BERT (Kim et al. 2021, section 3.5,
    arXiv:2101.01321), and the channels' powers of two from FQ-ViT (Lin et al. 2022, section 3.2,
    arXiv:2111.13824). Unlike there, mean and variance are exact here.
    """

    kind: Literal["normalize"] = "normalize"
    terms: Extent
    centred: bool
    zero_point: Int64
    epsilon: Annotated[int, Field(ge=1, le=1 << 61)]
    """The number that is added to the sum of squares. It is not 0, so that a constant row gives 0.
    """
    fraction_bits: Annotated[int, Field(ge=1, le=20)]
    parameter_roles: ClassVar[tuple[str, ...]] = ("gain", "bias")
    optional_roles: ClassVar[tuple[str, ...]] = ("channel_shift",)
    learned_roles: ClassVar[tuple[str, ...]] = ("gain", "bias")
    family: ClassVar[Family] = Family.ROW
    scaling: ClassVar[Scaling] = Scaling.OWN
    accumulates: ClassVar[bool] = True

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the input's shape."""
        found = {role: tensor.shape for role, tensor in parameters.items()}
        require(
            len(shapes[0]) >= 2 and shapes[0][-1] == self.terms,
            f"the input has the shape {shapes[0]}, expected at least two axes and {self.terms} "
            "elements along the last one",
        )
        require(
            all(shape == (self.terms,) for shape in found.values()),
            f"the tensors have the shapes {found}, expected one number for each of {self.terms} "
            "channels",
        )
        return shapes[0]

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns an interval; no element exceeds the root of the sum of all squares."""
        self._check_squares(inputs[0], parameters)
        gain, bias = parameters["gain"].astype(object), parameters["bias"].astype(object)
        reach = abs(gain) * (1 << self.fraction_bits)
        low, high = (np.minimum(bias, 0) - reach).min(), (np.maximum(bias, 0) + reach).max()
        return Interval(int(low), int(high))

    def _check_squares(self, x: Interval, parameters: Parameters) -> None:
        """Raises an error for inputs whose sum of squares exceeds 62 bits."""
        shift = parameters.get("channel_shift", np.zeros(1, np.int64))
        require(shift.min() >= 0 and shift.max() <= 15, "channel shifts must lie between 0 and 15")
        spread = x.shifted(-self.zero_point).scaled(1 << int(shift.max())).union(Interval(0, 0))
        # The sum of squares around a mean is largest with half of the elements at each end.
        extent = spread.high - spread.low
        squares = (
            self.terms**3 * extent**2 // 4 if self.centred else self.terms * spread.magnitude**2
        )
        require(
            squares + self.epsilon < 1 << 62,
            f"the squares of {self.terms} elements between {spread.low} and {spread.high} exceed "
            "62 bits",
        )

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes row by row, with the root in Python's integers."""
        x = (inputs[0] - self.zero_point) << parameters.get("channel_shift", np.int64(0))
        d = self.terms * x - x.sum(axis=-1, keepdims=True) if self.centred else x
        squares = (d * d).sum(axis=-1, keepdims=True) + self.epsilon
        half_shift = np.array(
            [(SQUARE_BITS - int(v).bit_length()) // 2 for v in squares.reshape(-1)], np.int64
        ).reshape(squares.shape)
        scaled = (squares << np.maximum(2 * half_shift, 0)) >> np.maximum(-2 * half_shift, 0)
        roots = [math.isqrt(int(v)) for v in scaled.reshape(-1)]
        inverse = (1 << INVERSE_BITS) // np.array(roots, np.int64).reshape(squares.shape)
        shift = INVERSE_BITS - half_shift - self.fraction_bits
        normal = (d * inverse + (np.int64(1) << (shift - 1))) >> shift
        return normal * parameters["gain"] + parameters["bias"]

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function of int64; the root of a number of 48 bits is exact in float64."""
        output = carrier(self.output_interval(inputs, parameters))
        gain, bias = (torch.from_numpy(parameters[role]).to(device) for role in ("gain", "bias"))
        shifts = parameters.get("channel_shift")
        factor = 1 if shifts is None else torch.from_numpy(np.int64(1) << shifts).to(device)

        def run(x: torch.Tensor) -> torch.Tensor:
            x = (x.to(torch.int64) - self.zero_point) * factor
            normal = normal_of(x, self.centred, self.epsilon, self.fraction_bits)
            return (normal * gain + bias).to(output)

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns three operations per element: for the sum, the squares and the division."""
        return LaneOperations(rescalings=3 * math.prod(shapes[0]))


def normal_of(x: torch.Tensor, centred: bool, epsilon: int, fraction_bits: int) -> torch.Tensor:
    """Returns `normal` of the operator's definition, for the int64 integers `x'`."""
    d = x.shape[-1] * x - x.sum(dim=-1, keepdim=True) if centred else x
    squares = (d * d).sum(dim=-1, keepdim=True) + epsilon
    bits = torch.frexp(squares.to(torch.float64)).exponent.to(torch.int64)
    bits -= (squares >> (bits - 1) == 0).to(
        torch.int64
    )  # corrects numbers that the conversion to float rounded up
    half_shift = (SQUARE_BITS - bits) >> 1
    scaled = (squares << (2 * half_shift).clamp(min=0)) >> (-2 * half_shift).clamp(min=0)
    inverse = (1 << INVERSE_BITS) // torch.sqrt(scaled.to(torch.float64)).to(torch.int64)
    shift = INVERSE_BITS - half_shift - fraction_bits
    return (d * inverse + (1 << (shift - 1))) >> shift


def real_normal(
    x: torch.Tensor, step: torch.Tensor, epsilon: float, centred: bool, target: Target
) -> torch.Tensor:
    """Returns the real number that the operator's `normal` stands for.

    Args:
        x: multiples of `step`; the norm is over their last axis.
        step: the smallest scale of the input, [].
        epsilon: the number that is added to the mean of squares.
        centred: whether the mean is subtracted.
        target: the target, whose accumulator determines the number of bits.

    Returns:
        `(x - mean) / sqrt(mean((x - mean)**2) + epsilon)`, rounded as the integers are, in float64.
    """
    terms, codes = x.shape[-1], (x / step).round().to(torch.int64)
    scaled = normal_epsilon(epsilon, terms, centred, float(step))
    normal = normal_of(codes, centred, scaled, normal_fraction_bits(target))
    return normal.double() * normal_unit(terms, target)


def normal_fraction_bits(target: Target) -> int:
    """Returns the number of fraction bits of a normalized value, before its gain."""
    return min(20, target.accumulator_bits - GAIN_BITS - 3)


def normal_unit(terms: int, target: Target) -> float:
    """Returns the real value of one unit of `normal`, for rows of `terms` elements."""
    return math.sqrt(terms) * 2.0 ** -normal_fraction_bits(target)


def normal_epsilon(epsilon: float, terms: int, centred: bool, scale: float) -> int:
    """Returns `epsilon` of a norm in units of the operator's sum of squares.

    Args:
        epsilon: the number that is added to the mean of squares.
        terms: the elements of a row.
        centred: whether the mean is subtracted.
        scale: the scale of the input.
    """
    return max(1, min(round(epsilon / scale**2 * (terms**3 if centred else terms)), 1 << 61))
