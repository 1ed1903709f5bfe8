"""The known faults of a receiver's rescaling: a name for each, and what it computes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from photomask.chip.arithmetic import round_shift
from photomask.chip.forms.conformance.documents import RescalingFormat
from photomask.chip.target import Rounding

ROUNDING_WORDS = {
    Rounding.HALF_UP: "rounds halves up",
    Rounding.HALF_EVEN: "rounds halves to even",
    Rounding.HALF_AWAY: "rounds halves away from zero",
    Rounding.TRUNCATE: "drops the low bits (rounds down)",
    Rounding.DOUBLE: "rounds twice, as TOSA does",
}
"""What a receiver with each rounding mode does, in words."""
NARROW_PRODUCTS = (24, 32, 40, 48)
"""Widths of products in bits that hardware is often built with."""

Round = Callable[[int, int], int]
"""A function from a product and a shift to the scaled integer."""


@dataclass(frozen=True)
class ReceiverFault:
    """A wrong way to rescale.

    Attributes:
        words: what the receiver does, as a sentence without its subject.
        result: computes the receiver's result from format, accumulator, multiplier and shift,
            before it is cut to the output's bits. It returns None where hardware with the fault may
            do anything.
    """

    words: str
    result: Callable[[RescalingFormat, int, int, int], int | None]


def receiver_faults(rounding: Rounding) -> list[ReceiverFault]:
    """Returns every known fault of a receiver that should round as `rounding` says."""
    return [*_rounding_faults(rounding), *_other_faults()]


def _rounding_faults(right: Rounding) -> Iterator[ReceiverFault]:
    for rounding, words in ROUNDING_WORDS.items():
        if rounding is not right:
            yield _rounded(words, lambda p, s, mode=rounding: round_shift(p, s, mode))
    yield _rounded("rounds halves down", _half_down)
    yield _rounded("rounds halves toward zero", lambda p, s: _mirrored(p, s, _half_down))
    yield _rounded("rounds toward zero", lambda p, s: _mirrored(p, s, _floor))
    yield _rounded("rounds up", lambda p, s: -(-p >> s))


def _rounded(words: str, rounded: Round) -> ReceiverFault:
    def result(format: RescalingFormat, x: int, multiplier: int, shift: int) -> int:
        scaled = rounded((x + format.offset) * multiplier, shift)
        return _clamped(format, scaled + format.zero_point)

    return ReceiverFault(words, result)


def _floor(product: int, shift: int) -> int:
    return product >> shift


def _half_down(product: int, shift: int) -> int:
    return -round_shift(-product, shift, Rounding.HALF_UP)


def _mirrored(product: int, shift: int, rounded: Round) -> int:
    """Rounds a negative product in the same way as its positive counterpart."""
    return rounded(product, shift) if product >= 0 else -rounded(-product, shift)


def _clamped(format: RescalingFormat, value: int) -> int:
    return min(max(value, format.low), format.high)


def _moved(format: RescalingFormat, x: int, multiplier: int, shift: int) -> int:
    """Returns the right result without saturation."""
    product = (x + format.offset) * multiplier
    return round_shift(product, shift, format.rounding) + format.zero_point


def _other_faults() -> Iterator[ReceiverFault]:
    yield ReceiverFault("shifts by one bit too many", lambda f, x, m, s: f.result(x, m, s + 1))
    yield ReceiverFault(
        "shifts by one bit too few", lambda f, x, m, s: f.result(x, m, s - 1) if s else None
    )
    yield ReceiverFault(
        "does not saturate at the low end", lambda f, x, m, s: min(_moved(f, x, m, s), f.high)
    )
    yield ReceiverFault(
        "does not saturate at the high end", lambda f, x, m, s: max(_moved(f, x, m, s), f.low)
    )
    yield ReceiverFault("does not saturate at either end", _moved)
    yield ReceiverFault("saturates before it adds the zero point", _saturates_early)
    yield ReceiverFault("adds the zero point before it rounds", _adds_early)
    yield ReceiverFault(
        "leaves out the zero point",
        lambda f, x, m, s: _clamped(f, _moved(f, x, m, s) - f.zero_point),
    )
    yield ReceiverFault("leaves out the offset", lambda f, x, m, s: f.result(x - f.offset, m, s))
    yield ReceiverFault("takes the multiplier as a signed number", _signed_multiplier)
    for bits in NARROW_PRODUCTS:
        yield _narrow(bits)


def _saturates_early(format: RescalingFormat, x: int, multiplier: int, shift: int) -> int:
    scaled = _moved(format, x, multiplier, shift) - format.zero_point
    return _clamped(format, scaled) + format.zero_point


def _adds_early(format: RescalingFormat, x: int, multiplier: int, shift: int) -> int:
    product = (x + format.offset) * multiplier + (format.zero_point << shift)
    return _clamped(format, round_shift(product, shift, format.rounding))


def _signed_multiplier(format: RescalingFormat, x: int, multiplier: int, shift: int) -> int:
    negative = multiplier >> (format.multiplier_bits - 1)
    return format.result(x, multiplier - (negative << format.multiplier_bits), shift)


def _narrow(bits: int) -> ReceiverFault:
    def result(format: RescalingFormat, x: int, multiplier: int, shift: int) -> int:
        product = (x + format.offset) * multiplier
        kept = (product + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
        scaled = round_shift(kept, shift, format.rounding)
        return _clamped(format, scaled + format.zero_point)

    return ReceiverFault(f"keeps only {bits} bits of the product", result)
