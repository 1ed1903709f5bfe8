"""Softmax over the last axis, with exponents from a table and one reciprocal for each row."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import (
    Operator,
    Parameters,
    Shape,
    TorchFunction,
    require,
)
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations
from photomask.chip.quantizers.straight_through import round_half_even, stand_in

EXPONENT_BITS = 15
"""The exponents and the results of a converted softmax reach up to `2**EXPONENT_BITS`."""
RECIPROCAL_BITS = 40
"""The softmax of a converted model multiplies its exponents by `2**RECIPROCAL_BITS // sum`."""


class Softmax(Operator):
    """`accumulator[i] = round(e[i] * (2**reciprocal_bits // sum(e)) / 2**(reciprocal_bits - f))`.

    `e[i] = table[min(peak - x[i], len(table) - 1)]`, where `peak` is the largest code of the row
    and `table[d] ≈ table[0] * exp(-d * scale)`. Therefore no code is too large, and no exponent
    needs a range beyond the table. Halves are rounded up. One unit of the result is `2**-f`, where
    `f` is `fraction_bits`. Each row needs one division.

    Elements whose mask is 0 do not count in the peak or the sum, and their result is 0. If all
    elements of a row are hidden, all results are 0. The mask is a constant, a second input (0 or
    not 0), or both.

    With exponents rounded to the nearest, the result is within `1/2 + 2**(f - reciprocal_bits) *
    table[0]` units of the softmax of the table's entries.

    Source: the shifted exponent and the single integer reciprocal come from I-BERT (Kim et al.
    2021, section 3.4, arXiv:2101.01321). There the exponent is a polynomial; here it is a table.
    """

    kind: Literal["softmax"] = "softmax"
    fraction_bits: Annotated[int, Field(ge=1, le=24)]
    reciprocal_bits: Annotated[int, Field(ge=1, le=52)]
    parameter_roles: ClassVar[tuple[str, ...]] = ("table",)
    optional_roles: ClassVar[tuple[str, ...]] = ("mask",)
    learned_roles: ClassVar[tuple[str, ...]] = ()
    input_count: ClassVar[int | None] = None
    family: ClassVar[Family] = Family.REDUCTION
    scaling: ClassVar[Scaling] = Scaling.OWN
    accumulates: ClassVar[bool] = True

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.reciprocal_bits <= self.fraction_bits:
            raise ValueError("reciprocal_bits must exceed fraction_bits")
        return self

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the shape of the scores."""
        table, sample = parameters["table"], shapes[0][1:]
        require(
            len(shapes) <= 2,
            f"a softmax takes the scores and at most one mask, got {len(shapes)} inputs",
        )
        for shape in shapes[1:]:
            require(
                shape[0] in (1, shapes[0][0]),
                (f"the mask has {shape[0]} samples, expected 1 or {shapes[0][0]}"),
            )
        masks = [shape[1:] for shape in shapes[1:]]
        masks += [parameters["mask"].shape] if "mask" in parameters else []
        for mask in masks:
            require(
                np.broadcast_shapes(mask, sample) == sample,
                f"a mask of shape {mask} does not broadcast to a sample of shape {sample}",
            )
        require(
            table.ndim == 1 and len(table) > 0,
            f"the table has the shape {table.shape}, expected one axis with at least one entry",
        )
        require(
            table.min() >= 0 and table[0] > 0 and bool((np.diff(table) <= 0).all()),
            "the table must start with a positive entry, must never rise, and must never fall "
            "below 0",
        )
        require(
            int(table[0]) * sample[-1] < 1 << self.reciprocal_bits,
            f"a sum of {sample[-1]} exponents up to {table[0]} exceeds 2**reciprocal_bits with "
            f"reciprocal_bits {self.reciprocal_bits}",
        )
        return shapes[0]

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the interval from 0 to 1, in units of the result."""
        require(
            inputs[0].high - inputs[0].low < 1 << 31,
            f"the scores reach from {inputs[0].low} to {inputs[0].high}, so their differences "
            "exceed 31 bits",
        )
        return Interval(0, 1 << self.fraction_bits)

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes all rows in int64."""
        x, table = inputs[0], parameters["table"]
        seen = np.broadcast_to(parameters.get("mask", np.int64(1)) != 0, x.shape)
        if len(inputs) == 2:
            seen = seen & (inputs[1] != 0)
        peak = np.where(seen, x, x.min()).max(axis=-1, keepdims=True)
        distance = np.clip(peak - x, 0, len(table) - 1)
        exponent = np.where(seen, table[distance], 0)
        total = exponent.sum(axis=-1, keepdims=True)
        reciprocal = np.where(total > 0, (1 << self.reciprocal_bits) // np.maximum(total, 1), 0)
        shift = self.reciprocal_bits - self.fraction_bits
        return (exponent * reciprocal + (1 << (shift - 1))) >> shift

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function of float64.

        It is exact, because the quotient is below 2**52, so its rounding cannot cross an integer.
        """
        output, dtype = carrier(self.output_interval(inputs, parameters)), torch.float64
        table = torch.from_numpy(parameters["table"]).to(device, dtype)
        constant = parameters.get("mask")
        hidden = None if constant is None else torch.from_numpy(constant == 0).to(device)
        shift = self.reciprocal_bits - self.fraction_bits
        whole = 2.0**self.reciprocal_bits
        unit = 2.0**-shift
        half = 2.0 ** (shift - 1)

        def run(x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            x, away = x.to(dtype), hidden
            if mask is not None:
                away = mask == 0 if hidden is None else hidden | (mask == 0)
            peak = x if away is None else x.masked_fill(away, float(inputs[0].low))
            distance = peak.amax(dim=-1, keepdim=True) - x
            exponent = table[distance.clamp_(0, len(table) - 1).to(torch.int64)]
            if away is not None:
                exponent = exponent.masked_fill(away, 0.0)
            total = exponent.sum(dim=-1, keepdim=True)
            reciprocal = torch.where(total > 0, torch.floor(whole / total.clamp(min=1.0)), 0.0)
            return torch.floor((exponent * reciprocal + half) * unit).to(output)

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns three operations per element: for the peak, for the sum, and for the division."""
        return LaneOperations(lookups=3 * math.prod(shapes[0]))

    def input_lane_axis(self, number: int, shape: Shape) -> int | None:
        """Returns the last axis of the scores; any axis of a mask will do."""
        return len(shape) - 1 if number == 0 else None

    def output_lane_axis(self, shapes: Sequence[Shape], output: Shape) -> int | None:
        """Returns the last axis, as for the scores."""
        return len(output) - 1


def real_shares(scores: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """Returns the real numbers that the operator's results stand for.

    Exponents, reciprocals and shares are rounded as in the operator. Scores of one scale differ by
    whole multiples of it, so the exponents equal the entries of a table.

    Args:
        scores: multiples of one scale; the softmax is over their last axis.
        hidden: boolean, broadcasts with the scores; True for elements that do not count. None if
            all count.

    Returns:
        The shares of each row. The gradient is that of the softmax of the rounded exponents.
    """
    seen = scores if hidden is None else scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    exact = torch.exp(seen - seen.detach().amax(dim=-1, keepdim=True)) * 2.0**EXPONENT_BITS
    exact = exact if hidden is None else exact.masked_fill(hidden, 0.0)
    exponents = round_half_even(exact)
    total = exponents.sum(dim=-1, keepdim=True).clamp(min=1.0)
    with torch.no_grad():
        reciprocal = torch.floor(2.0**RECIPROCAL_BITS / total)
        shift = RECIPROCAL_BITS - EXPONENT_BITS
        units = torch.floor((exponents * reciprocal + 2.0 ** (shift - 1)) * 2.0**-shift)
    return stand_in(units * 2.0**-EXPONENT_BITS, exponents / total)
