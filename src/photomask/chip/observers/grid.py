"""Computes scale and zero point of an integer grid from a range of real values."""

from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.chip.formats import Interval, IntFormat

_SMALLEST_SCALE = torch.finfo(torch.float32).tiny
_LARGEST_POWER_OF_TWO = 2.0**127


def round_up_to_power_of_two(values: Tensor) -> Tensor:
    """Returns, for each positive value, the smallest power of two that is at least as large."""
    mantissa, exponent = torch.frexp(values)
    # frexp returns a mantissa in [1/2, 1). It is exactly 1/2 where the value is a power of two.
    return torch.ldexp(torch.ones_like(values), exponent - (mantissa == 0.5).to(exponent.dtype))


@dataclass(frozen=True)
class Grid:
    """The codes of a quantizer, and the rules by which scale and zero point follow from a range.

    A code `q` represents `(q - zero_point) * scale`.

    Attributes:
        format: the bits and the signedness of the codes.
        symmetric: True if the zero point is 0.
        narrow: True if the most negative code is left out, so that codes are balanced around 0.
        power_of_two: True if every scale is a power of two.
    """

    format: IntFormat
    symmetric: bool
    narrow: bool = False
    power_of_two: bool = False

    @property
    def codes(self) -> Interval:
        """The interval of the codes in use."""
        return Interval(self.format.low + (self.narrow and self.format.signed), self.format.high)

    def scale(self, low: Tensor, high: Tensor) -> Tensor:
        """Returns the smallest scale whose grid covers a range.

            affine:    scale = (high - low) / (code_high - code_low)
            symmetric: scale = max(high / code_high, low / code_low)

        The range is first widened to include 0, so that 0 is exactly representable; padding and the
        zeros of ReLU then have no error. A range that holds only 0 gets the scale 1, which
        `calibrate` replaces with one that follows from the surroundings.

        Args:
            low: the lower ends, in any shape.
            high: the upper ends, in the same shape, not below `low`.

        Returns:
            The scales in the same shape, float32.
        """
        codes = self.codes
        low, high = low.double().clamp(max=0), high.double().clamp(min=0)
        if not self.symmetric:
            scale = (high - low) / (codes.high - codes.low)
        else:
            scale = high / codes.high
            if codes.low < 0:
                scale = torch.maximum(scale, low / codes.low)
        scale = torch.where(scale == 0, 1.0, scale).clamp(min=_SMALLEST_SCALE)
        if self.power_of_two:
            scale = round_up_to_power_of_two(scale).clamp(max=_LARGEST_POWER_OF_TWO)
        return scale.float()

    def zero_point(self, low: Tensor, scale: Tensor) -> Tensor:
        """Returns the code of 0, which is `round(code_low - low / scale)`, clamped to the codes.

        Args:
            low: the lower ends of the ranges.
            scale: the scales in the same shape, float32.

        Returns:
            The codes, int64; all are 0 if the grid is symmetric.
        """
        codes = self.codes
        if self.symmetric:
            return torch.zeros_like(scale, dtype=torch.int64)
        offset = codes.low - low.double().clamp(max=0) / scale.double()
        return offset.round().clamp(codes.low, codes.high).to(torch.int64)
