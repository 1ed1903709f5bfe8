"""Chooses a program's conformance vectors: its rescaling formats, and numbers for each of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from photomask.chip.formats import IntFormat
from photomask.chip.forms.conformance.documents import (
    ConformanceVectors,
    RescalingFormat,
    VectorStep,
)
from photomask.chip.operators import Requantize
from photomask.chip.program import IntegerProgram, Step
from photomask.chip.target import Rounding, ZeroPoints

GENERAL = "general"
"""The beginning of the name of a format that has a signed output of full range."""
PRODUCT_BITS = 62
"""The magnitude bits of the largest product; rounding and the sign need two more bits of 64."""
GENERAL_ZERO_POINT = 5


def conformance_vectors(
    program: IntegerProgram, accumulator_bits: int | None = None
) -> ConformanceVectors | None:
    """Returns vectors for every format in which a program rescales.

    A format that has no negative results cannot show how negative ties are rounded. A general
    format is therefore added to the formats of the program. It has a signed output, saturates at
    both ends of it, and has a zero point if the target has zero points.

    Args:
        program: the program that the receiver is to compute.
        accumulator_bits: the accumulator width of a machine whose accumulators may be narrower than
            the target's; None takes the width of the program.

    Returns:
        The vectors, or None if the program has no requantization.
    """
    found: dict[str, tuple[RescalingFormat, list[str]]] = {}
    for step in program.steps:
        if isinstance(step.operator, Requantize):
            format = _format_of(program, step, step.operator, accumulator_bits)
            found.setdefault(format.render(), (format, []))[1].append(step.name)
    if not found:
        return None
    formats = [
        format.model_copy(update={"name": f"rescaling_{number}", "used_by": tuple(steps)})
        for number, (format, steps) in enumerate(found.values())
    ]
    formats += [
        _general(program, formats, rounding)
        for rounding in dict.fromkeys(format.rounding for format in formats)
    ]
    steps = [
        step for format in formats for step in _steps(format, program.target.per_channel_shift)
    ]
    return ConformanceVectors(
        target=program.target.name, formats=tuple(formats), steps=tuple(steps)
    )


def _format_of(
    program: IntegerProgram, step: Step, operator: Requantize, accumulator_bits: int | None
) -> RescalingFormat:
    """Returns the rescaling format of one step, without a name."""
    multiplier, shift = (program.parameters(step)[role] for role in ("multiplier", "shift"))
    accumulator = program.edges[step.inputs[0]].format
    if accumulator_bits is not None:
        accumulator = _held(accumulator, operator.offset, accumulator_bits)
    output = program.edges[step.output].format
    largest = accumulator.interval.shifted(operator.offset).magnitude
    return RescalingFormat(
        name="",
        rounding=operator.rounding,
        multiplier_bits=max(
            int(multiplier.max()).bit_length(),
            min(
                program.formats[step.tensors["multiplier"]].bits,
                PRODUCT_BITS - largest.bit_length(),
            ),
        ),
        shift_min=min(program.target.shift_min, int(shift.min())),
        shift_max=max(program.target.shift_max, int(shift.max())),
        accumulator=accumulator,
        output=output,
        offset=operator.offset,
        zero_point=operator.zero_point,
        low=max(operator.low, output.low),
        high=min(operator.high, output.high),
        per_channel=multiplier.size > 1,
        used_by=(),
    )


def _held(format: IntFormat, offset: int, accumulator_bits: int) -> IntFormat:
    """Returns the widest such format that accumulators can hold, with and without the offset."""
    widest = IntFormat(bits=accumulator_bits, signed=True).interval
    while format.bits > 1 and not (
        format.interval.within(widest) and format.interval.shifted(offset).within(widest)
    ):
        format = format.model_copy(update={"bits": format.bits - 1})
    return format


def _general(
    program: IntegerProgram, formats: list[RescalingFormat], rounding: Rounding
) -> RescalingFormat:
    """Returns the general format, which every receiver of the target can compute."""
    target = program.target
    bits = max(format.accumulator.bits for format in formats)
    accumulator = IntFormat(bits=max(bits, 4), signed=True)
    widths = [format.output.bits for format in formats]
    output = IntFormat(bits=max(4, min(*widths, accumulator.bits)), signed=True)
    multiplier = 1 if target.power_of_two_only else target.multiplier_bits
    return RescalingFormat(
        name=f"{GENERAL}_{rounding}",
        rounding=rounding,
        multiplier_bits=min(multiplier, PRODUCT_BITS - accumulator.bits),
        shift_min=target.shift_min,
        shift_max=target.shift_max,
        accumulator=accumulator,
        output=output,
        offset=0,
        zero_point=0 if target.zero_points is ZeroPoints.NONE else GENERAL_ZERO_POINT,
        low=output.low,
        high=output.high,
        per_channel=any(format.per_channel for format in formats),
        used_by=(),
    )


@dataclass(frozen=True)
class _Scale:
    multiplier: int
    shift: int


def _steps(format: RescalingFormat, per_channel_shift: bool) -> Iterator[VectorStep]:
    """Yields the steps of a format, with as many channels in each step as the format allows."""
    scales = list(dict.fromkeys(_scales(format)))
    groups: dict[object, list[_Scale]] = {}
    for scale in scales:
        shared = scale if not format.per_channel else None if per_channel_shift else scale.shift
        groups.setdefault(shared, []).append(scale)
    for number, group in enumerate(groups.values()):
        rows = [_accumulators(format, scale) for scale in group]
        length = max(map(len, rows))
        rows = [row + row[-1:] * (length - len(row)) for row in rows]
        yield VectorStep(
            step=format.name if len(groups) == 1 else f"{format.name}.{number}",
            format=format.name,
            multiplier=tuple(scale.multiplier for scale in group),
            shift=tuple(scale.shift for scale in group),
            accumulator=tuple(map(tuple, rows)),
            expected=tuple(
                tuple(format.result(x, scale.multiplier, scale.shift) for x in row)
                for row, scale in zip(rows, group, strict=True)
            ),
        )


def _scales(format: RescalingFormat) -> Iterator[_Scale]:
    """Yields multipliers and shifts: a half, a fine scale, the largest product, and both ends."""
    bits = format.multiplier_bits
    most, top = (1 << bits) - 1, bits - 1
    largest = format.accumulator.interval.shifted(format.offset).magnitude
    span = max(abs(format.low - format.zero_point), abs(format.high - format.zero_point), 1)
    surplus = max(1, largest.bit_length() - span.bit_length())
    half = _power_of_two(format, 1)
    yield half
    yield _power_of_two(format, max(2, surplus - 2))
    yield _Scale(most, _within(format, top + surplus + 2))
    if not format.per_channel and format.used_by:
        return  # Each scale would take a step of its own, and the general format tests them all.
    if bits > 1:
        yield _Scale(min(most, half.multiplier + max(1, half.multiplier // 2)), half.shift)
    yield _Scale(most, _within(format, top + surplus))
    yield _Scale(1 << top, _within(format, 32))  # from this shift on, TOSA rounds twice
    if format.rounding is Rounding.DOUBLE:
        yield from (_Scale(1 << top, _within(format, shift)) for shift in (31, 33))
    yield _Scale(1, format.shift_min)
    yield _Scale(1 << top, format.shift_max)
    yield _Scale(most, format.shift_max)


def _within(format: RescalingFormat, shift: int) -> int:
    return min(max(shift, format.shift_min), format.shift_max)


def _power_of_two(format: RescalingFormat, exponent: int) -> _Scale:
    """Returns the scale `2**-exponent`, or one near it, with the largest possible multiplier."""
    top = format.multiplier_bits - 1
    shift = _within(format, top + exponent)
    return _Scale(1 << min(max(shift - exponent, 0), top), shift)


def _accumulators(format: RescalingFormat, scale: _Scale) -> list[int]:
    """Returns the accumulators that tell faults apart at one scale."""
    low, high = format.low - format.zero_point, format.high - format.zero_point
    middle, beyond = (low + high) // 2, (1 << format.output.bits) // 3
    ties = [-2, -1, 0, 1, low - 1, low, middle, middle + 1, high - 1, high]
    whole = [low - 1, high + 1, low - beyond, high + beyond]
    values = [0, 1, -1]
    for floor in ties:
        value, rest = divmod((2 * floor + 1) << scale.shift, 2 * scale.multiplier)
        beside = rest or floor in (-1, 0, low, high - 1)
        values += [value - 1, value, value + 1] if beside else [value]
    values += [(number << scale.shift) // scale.multiplier for number in whole]
    least, most = format.accumulator.low, format.accumulator.high
    inside = [x - format.offset for x in values]
    inside = [least, most, *(x for x in inside if least <= x <= most)]
    return list(dict.fromkeys(inside))
