"""Integer number formats and exact integer intervals."""

from dataclasses import dataclass
from typing import Self

from pydantic import Field

from photomask.documents import Document


@dataclass(frozen=True)
class Interval:
    """All integers from `low` to `high`, both included; Python integers, so never an overflow."""

    low: int
    high: int

    @property
    def magnitude(self) -> int:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    @property
    def bits(self) -> int:
        """Bits of the narrowest format that holds every value (unsigned if none is negative)."""
        return IntFormat.holding(self).bits

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
        """Returns the smallest interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))

    def within(self, other: "Interval") -> bool:
        """Tells whether every value lies in `other`."""
        return other.low <= self.low and self.high <= other.high


class IntFormat(Document):
    """A two's-complement or unsigned integer of `bits` bits."""

    bits: int = Field(ge=1, le=64)
    signed: bool

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
        """All values of the format."""
        return Interval(self.low, self.high)

    @classmethod
    def holding(cls, interval: Interval) -> Self:
        """Returns the narrowest format that holds every value of `interval`."""
        if interval.low >= 0:
            return cls(bits=max(1, interval.high.bit_length()), signed=False)
        magnitude = max(interval.high, -interval.low - 1)
        return cls(bits=max(0, magnitude).bit_length() + 1, signed=True)

    def __str__(self) -> str:
        return f"{'int' if self.signed else 'uint'}{self.bits}"
