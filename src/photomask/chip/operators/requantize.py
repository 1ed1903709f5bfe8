"""Requantization: an accumulator, or another activation, is rescaled to a format of fewer bits."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import model_validator

from photomask.chip.arithmetic import FLOAT32_EXACT, FLOAT64_EXACT, carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import (
    Int64,
    Operator,
    Parameters,
    Shape,
    TorchFunction,
    require,
)
from photomask.chip.operators.blocks import in_blocks
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations
from photomask.chip.target import Rounding


class Requantize(Operator):
    """`y = clamp(round((x + offset) * multiplier / 2**shift) + zero_point, low, high)`.

    `offset` is a constant. For an activation it is the negative zero point; for an accumulator it
    is 0, because the bias already holds the correction. `multiplier` and `shift` broadcast against
    the shape of one sample without the batch: [1] or [C, 1, …] or [1, H, W]. `low` and `high` are
    the ends of the format, or of a fused clamp such as ReLU.

    Source: Jacob et al. 2018, section 2.2, arXiv:1712.05877.
    """

    kind: Literal["requantize"] = "requantize"
    rounding: Rounding
    offset: Int64
    zero_point: Int64
    low: Int64
    high: Int64
    parameter_roles: ClassVar[tuple[str, ...]] = ("multiplier", "shift")
    learned_roles: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[Family] = Family.ELEMENTWISE
    scaling: ClassVar[Scaling] = Scaling.CHANGED
    accumulates: ClassVar[bool] = False

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the input's shape."""
        multiplier, shift = parameters["multiplier"].shape, parameters["shift"].shape
        sample = shapes[0][1:]
        require(
            multiplier == shift and np.broadcast_shapes(multiplier, sample) == sample,
            f"multipliers of shape {multiplier} and shifts of shape {shift} do not fit a sample "
            f"of shape {sample}; both must have one shape that broadcasts to the sample",
        )
        return shapes[0]

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the interval of the rescaled and clamped input."""
        x = inputs[0].shifted(self.offset)
        multiplier, shift = parameters["multiplier"], parameters["shift"]
        require(
            multiplier.size > 0 and multiplier.min() >= 0 and 0 <= shift.min() <= shift.max() <= 62,
            "multipliers must not be negative, and shifts must lie between 0 and 62",
        )
        largest = x.magnitude * int(multiplier.max()) + (1 << int(shift.max()) >> 1) + (1 << 30)
        require(
            max(largest, x.magnitude, inputs[0].magnitude) + abs(self.zero_point) < 1 << 63,
            "product and rounding exceed 63 bits",
        )
        ends = np.array([[inputs[0].low], [inputs[0].high]], np.int64)
        flat = {role: parameters[role].reshape(1, -1) for role in ("multiplier", "shift")}
        values = self.run_numpy([ends], flat)
        return Interval(int(values.min()), int(values.max()))

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes with int64 shifts; the product fits, because the target bounds both factors."""
        shift = parameters["shift"]
        product = (inputs[0] + self.offset) * parameters["multiplier"]
        half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
        if self.rounding is Rounding.HALF_UP:
            scaled = (product + half) >> shift
        elif self.rounding is Rounding.TRUNCATE:
            scaled = product >> shift
        elif self.rounding is Rounding.HALF_AWAY:
            scaled = np.sign(product) * ((np.abs(product) + half) >> shift)
        elif self.rounding is Rounding.DOUBLE:
            nudge = np.where(product >= 0, 1 << 30, -(1 << 30))
            scaled = (product + half + np.where(shift > 31, nudge, 0)) >> shift
        else:
            scaled = product >> shift
            remainder = product - (scaled << shift)
            odd = scaled & 1
            scaled = scaled + (
                (remainder > half) | ((remainder == half) & (odd == 1) & (shift > 0))
            )
        return np.clip(scaled + self.zero_point, self.low, self.high)

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a floating-point function if it is proven exact, else one of int64.

        `x * multiplier` is exact if it fits the significand. `2**-shift` only changes the exponent.
        Adding 1/2 and the zero point needs no bit below the product's last one.
        """
        multiplier, shift = parameters["multiplier"], parameters["shift"]
        output = carrier(self.output_interval(inputs, parameters))
        x = inputs[0].shifted(self.offset)
        widest = self._widest_product(inputs[0].magnitude + abs(self.offset), multiplier, shift)
        ends = Interval.hull(inputs[0], x, self.offset, self.low, self.high, 16 * self.zero_point)
        if max(widest, ends.magnitude) > FLOAT64_EXACT:
            return self._integer_function(parameters, device, output)
        dtype = torch.float32 if max(widest, ends.magnitude) <= FLOAT32_EXACT else torch.float64
        factor = torch.from_numpy(np.ldexp(multiplier.astype(np.float64), -shift))
        nudge = np.full(shift.shape, 0.5)
        if self.rounding is Rounding.DOUBLE:
            nudge = np.where(shift > 31, np.ldexp(1.0, 30 - shift), 0.0)
        return self._float_function(
            factor.to(device, dtype), torch.from_numpy(nudge).to(device, dtype), output
        )

    def _widest_product(self, x: int, multiplier: np.ndarray, shift: np.ndarray) -> int:
        """Returns the largest intermediate integer, in units of half the product's last bit.

        Channels whose product stays within ±1/4 are left out, because no rounding error changes
        their result.
        """
        products = [
            2 * (x * m + ((abs(self.zero_point) + 1) << s))
            for m, s in zip(multiplier.ravel().tolist(), shift.ravel().tolist(), strict=True)
            if 4 * x * m > 1 << s
        ]
        return max(products, default=0)

    def _float_function(
        self, factor: torch.Tensor, nudge: torch.Tensor, output: torch.dtype
    ) -> TorchFunction:
        """Returns a function that rescales in the dtype of `factor`.

        `nudge` is added away from zero before the rounding.
        """
        constant = factor * self.offset + (self.zero_point + 0.5)

        def half_up(x: torch.Tensor, factor: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
            value = torch.addcmul(constant, x.to(factor.dtype), factor).floor_()
            return value.clamp_(self.low, self.high)

        def others(x: torch.Tensor, factor: torch.Tensor, nudge: torch.Tensor) -> torch.Tensor:
            value = (x.to(factor.dtype) + self.offset).mul_(factor)
            if self.rounding is Rounding.HALF_EVEN:
                value.round_()
            elif self.rounding is Rounding.TRUNCATE:
                value.floor_()
            elif self.rounding is Rounding.HALF_AWAY:
                value.add_(torch.copysign(nudge, value)).trunc_()
            else:
                value.add_(torch.copysign(nudge, value)).add_(0.5).floor_()
            return value.add_(self.zero_point).clamp_(self.low, self.high)

        if self.rounding is Rounding.HALF_UP:
            return in_blocks(half_up, (factor, constant), output)
        return in_blocks(others, (factor, nudge), output)

    def _integer_function(
        self, parameters: Parameters, device: torch.device, output: torch.dtype
    ) -> TorchFunction:
        multiplier = torch.from_numpy(parameters["multiplier"]).to(device)
        shift = torch.from_numpy(parameters["shift"]).to(device)
        half = torch.where(shift > 0, torch.ones_like(shift) << (shift - 1).clamp(min=0), 0)
        nudge = torch.where(shift > 31, 1 << 30, 0)

        def rescale(
            x: torch.Tensor,
            multiplier: torch.Tensor,
            shift: torch.Tensor,
            half: torch.Tensor,
            nudge: torch.Tensor,
        ) -> torch.Tensor:
            value = (x.to(torch.int64) + self.offset).mul_(multiplier)
            if self.rounding is Rounding.HALF_UP:
                value = value.add_(half) >> shift
            elif self.rounding is Rounding.DOUBLE:
                value = (value + half + torch.where(value >= 0, nudge, -nudge)) >> shift
            elif self.rounding is Rounding.TRUNCATE:
                value = value >> shift
            elif self.rounding is Rounding.HALF_AWAY:
                value = value.sign() * ((value.abs() + half) >> shift)
            else:
                # Ties are rounded up first, and then back down if the result is odd.
                up = (value + half) >> shift
                tie = ((up << shift) - half == value) & (shift > 0)
                value = up - (tie & (up & 1 == 1)).to(torch.int64)
            return value.add_(self.zero_point).clamp_(self.low, self.high)

        return in_blocks(rescale, (multiplier, shift, half, nudge), output)

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one rescaling for each element."""
        return LaneOperations(rescalings=math.prod(shapes[0]))
