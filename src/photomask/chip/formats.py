"""Integer number formats and exact integer intervals."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from photomask.documents import Document


@dataclass(frozen=True)
class Interval:
    """All integers from `low` to `high`, both included, as Python integers that cannot overflow."""

    low: int
    high: int

    @property
    def magnitude(self) -> int:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    @property
    def bits(self) -> int:
        """The bits of the narrowest format that holds every value; unsigned if none is negative."""
        if self.low >= 0:
            return max(1, self.high.bit_length())
        return max(self.high, -self.low - 1, 0).bit_length() + 1

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.high + other.high)

    def scaled(self, factor: int) -> "Interval":
        """Returns the interval of `factor * x`."""
        return Interval(*sorted((self.low * factor, self.high * factor)))

    def shifted(self, offset: int) -> "Interval":
        """Returns the interval of `x + offset`."""
        return Interval(self.low + offset, self.high + offset)

    def product(self, other: "Interval") -> "Interval":
        """Returns the interval of `x * y`."""
        corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(corners), max(corners))

    def union(self, other: "Interval") -> "Interval":
        """Returns the smallest interval that contains both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))

    def within(self, other: "Interval") -> bool:
        """Tells whether every value lies in `other`."""
        return other.low <= self.low and self.high <= other.high

    @classmethod
    def hull(cls, *parts: "Interval | int") -> Self:
        """Returns the smallest interval that contains all parts."""
        ends = [(p, p) if isinstance(p, int) else (p.low, p.high) for p in parts]
        return cls(min(low for low, _ in ends), max(high for _, high in ends))


class IntFormat(Document):
    """A two's-complement or unsigned integer of `bits` bits."""

    bits: int = Field(ge=1, le=64)
    signed: bool

    @model_validator(mode="after")
    def _fits_int64(self) -> Self:
        if self.bits == 64 and not self.signed:
            raise ValueError("an unsigned format has at most 63 bits")
        return self

    @property
    def low(self) -> int:
        """The smallest value."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest value."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def interval(self) -> Interval:
        """The interval of all values of the format."""
        return Interval(self.low, self.high)

    @classmethod
    def holding(cls, interval: Interval) -> Self:
        """Returns the narrowest format that holds every value of `interval`."""
        return cls(bits=interval.bits, signed=interval.low < 0)

    def __str__(self) -> str:
        return f"{'int' if self.signed else 'uint'}{self.bits}"


def storage_dtype(format: IntFormat) -> np.dtype:
    """Returns the narrowest NumPy integer type that holds the format."""
    for bits in (8, 16, 32, 64):
        if format.bits <= bits:
            return np.dtype(f"{'i' if format.signed else 'u'}{bits // 8}")
    raise ValueError(format)
