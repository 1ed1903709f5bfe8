"""Which multipliers and shifts a program's scales call for, at any multiplier width.

A program states the scale of every edge, and that is all its rescaling follows from. So it can be
made again with wider or narrower multipliers. By what an average divides is recorded in its step.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from pydantic import ValidationError

from photomask.chip.arithmetic import FixedPoint, fixed_point
from photomask.chip.conversion.builder import with_factors
from photomask.chip.formats import IntFormat
from photomask.chip.operators import Add, Requantize, Scaling
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.chip.target import Target
from photomask.chip.units import aligned_unit, ratio_of
from photomask.documents import describe_validation
from photomask.errors import TargetError


@dataclass(frozen=True)
class Alignment:
    """The coefficients of an addition, and the shift that follows it."""

    operator: Add
    rescaler: Step
    """The requantization that shifts."""
    shift: int
    relative_error: float


class Rescaling:
    """The rescaling that a program's scales call for on a target."""

    def __init__(self, program: IntegerProgram, target: Target):
        self.program = program
        self.target = target

    def _edge(self, name: str) -> Edge:
        return self.program.edges[name]

    def alignment(self, step: Step) -> Alignment | None:
        """Returns what brings an addition's inputs to the scale of its rescaling.

        Returns:
            None if the step is no addition, or if anything but one rescaling needs its sums.

        Raises:
            TargetError: the target cannot.
        """
        rescaler = self.program.links.rescaling(step)
        if rescaler is None or not isinstance(step.operator, Add):
            return None
        inputs = [self.program.edges[name] for name in step.inputs]
        unit = min(self.program.edges[rescaler.output].scale)
        ratios = np.array([min(edge.scale) / unit for edge in inputs])
        signs = [int(np.sign(c)) for c in step.operator.coefficients]
        widest = max(edge.format.bits for edge in inputs)
        spare = self.target.accumulator_bits - 2 - widest - (len(inputs) - 1).bit_length()
        aligned = self.target.model_copy(
            update={
                "multiplier_bits": min(self.target.multiplier_bits, spare),
                "per_channel_shift": False,
                "shift_min": 0,
            }
        )
        if self.target.power_of_two_only:
            smallest = fixed_point(ratios.min(keepdims=True), aligned, repr(step.name))
            shift = int(smallest.shift[0])
            fixed = FixedPoint(np.ldexp(ratios, shift).astype(np.int64), smallest.shift, 0.0)
        else:
            fixed = fixed_point(ratios, aligned, repr(step.name))
        coefficients = [int(c) * s for c, s in zip(fixed.multiplier, signs, strict=True)]
        bias = -sum(c * edge.zero_point for c, edge in zip(coefficients, inputs, strict=True))
        operator = Add(coefficients=tuple(coefficients), bias=bias)
        return Alignment(operator, rescaler, int(fixed.shift[0]), fixed.relative_error)

    def multipliers(self, step: Step) -> FixedPoint:
        """Returns multipliers and shifts of a requantization, or only the shift of an addition's.

        Raises:
            TargetError: the target cannot.
        """
        producer = self.program.links.makers.get(step.inputs[0])
        aligned = None if producer is None else self.alignment(producer)
        if producer is not None and aligned is not None:
            one, shift = np.ones(1, dtype=np.int64), np.full(1, aligned.shift, dtype=np.int64)
            fixed, result = FixedPoint(one, shift, aligned.relative_error), self._edge(step.output)
            if len(result.scale) == 1 or len(self._edge(producer.output).scale) > 1:
                return fixed
            factors = np.log2(np.array(result.scale) / min(result.scale)).round()
            whole = tuple(int(factor) for factor in factors)
            return with_factors(fixed, whole, self.target, repr(step.name))
        return fixed_point(self._ratio(step, producer), self.target, repr(step.name))

    def _ratio(self, step: Step, producer: Step | None) -> np.ndarray:
        """Returns the real value of one unit of the input over that of the output.

        Raises:
            TargetError: the step does not record by what it divides a sum.
        """
        x, y = self.program.edges[step.inputs[0]], self.program.edges[step.output]
        shape = self.program.parameters(step)["multiplier"].shape
        scale, divisor = np.array(x.scale), np.ones(1)
        if scale.size == math.prod(shape):
            scale = scale.reshape(shape)
        if step.divisors is not None:
            divisor = np.array(step.divisors, dtype=np.float64)
            divisor = divisor.reshape(shape) if divisor.size > 1 else divisor
        elif producer is not None and producer.operator.scaling is Scaling.SUMMED:
            raise TargetError(
                f"{step.name!r} does not record by what it divides: the program was made by an "
                "earlier version of Photomask; convert the model again"
            )
        return ratio_of(scale, np.array(y.scale), divisor)


@dataclass
class _Rebuild:
    """A program in the making, step by step like another one."""

    rescaling: Rescaling
    edges: dict[str, Edge] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    formats: dict[str, IntFormat] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        """Adds a step; the values that its edge can hold follow anew."""
        program, changes = self.rescaling.program, {}
        edge, was = program.edges[step.output], step
        if isinstance(step.operator, Requantize):
            step = self._requantized(step)
        elif (aligned := self.rescaling.alignment(step)) is not None:
            rescaler = aligned.rescaler
            step = step.model_copy(update={"operator": aligned.operator})
            result = np.array(program.edges[rescaler.output].scale)
            scales = result if len(edge.scale) > 1 else result.min(keepdims=True)
            changes["scale"] = tuple(aligned_unit(scales, aligned.shift).tolist())
        parameters = {role: self.tensors[name] for role, name in step.tensors.items()}
        inputs = [self.edges[name].interval for name in step.inputs]
        interval = edge.interval
        if step is not was or inputs != [program.edges[name].interval for name in step.inputs]:
            interval = step.operator.output_interval(inputs, parameters)
        if not interval.within(edge.format.interval):
            raise TargetError(f"{step.name!r}: {interval} does not fit {edge.format}")
        changes |= {"low": interval.low, "high": interval.high}
        self.edges[edge.name] = edge.model_copy(update=changes)
        self.steps.append(step)

    def _requantized(self, step: Step) -> Step:
        fixed, target = self.rescaling.multipliers(step), self.rescaling.target
        self.tensors[step.tensors["multiplier"]] = fixed.multiplier
        self.tensors[step.tensors["shift"]] = fixed.shift
        bits = 1 if target.power_of_two_only else target.multiplier_bits
        self.formats[step.tensors["multiplier"]] = IntFormat(bits=bits, signed=False)
        return step.model_copy(update={"relative_error": fixed.relative_error})


def with_multiplier_bits(program: IntegerProgram, bits: int) -> IntegerProgram:
    """Returns the same program with rescaling multipliers of another width.

    Everything else stays: weights, biases, scales, formats. With the width that the program has,
    the result is the same program.

    Args:
        program: made for a target that multiplies.
        bits: magnitude bits of the multiplier, 4 to 31.

    Raises:
        TargetError: there is no such target, or it cannot hold what the program needs.
    """
    if program.target.power_of_two_only:
        raise TargetError(f"target {program.target.name!r} rescales by shifts alone")
    try:
        target = Target.model_validate(program.target.model_dump() | {"multiplier_bits": bits})
    except ValidationError as error:
        raise TargetError(f"no target has such multipliers: {describe_validation(error)}") from None
    rebuild = _Rebuild(
        Rescaling(program, target),
        edges={name: program.edges[name] for name in program.inputs},
        tensors=dict(program.tensors),
        formats=dict(program.formats),
    )
    try:
        for step in program.steps:
            rebuild.add(step)
    except ValueError as error:
        raise TargetError(f"{bits}-bit multipliers: {error}") from error
    return IntegerProgram(
        target=target,
        inputs=program.inputs,
        outputs=program.outputs,
        edges=list(rebuild.edges.values()),
        steps=rebuild.steps,
        tensors=rebuild.tensors,
        formats=rebuild.formats,
        provenance=program.provenance,
    )
