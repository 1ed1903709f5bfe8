"""Conformance vectors: numbers that prove how a receiver rescales, whatever a network's data are.

Golden vectors hold what a network computes from real data. In real data a product of accumulator
and multiplier almost never lies exactly between two integers. A receiver that wrongly rounds halves
down instead of up therefore passes all golden vectors. Conformance vectors are chosen to find such
faults. For each format in which a program rescales, they hold accumulators and multipliers that
produce ties of both signs, the neighbours of ties, values beyond both ends, and the largest
products.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from photomask.chip.arithmetic import round_shift
from photomask.chip.formats import IntFormat
from photomask.chip.operators import Requantize
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.chip.target import Rounding, Target
from photomask.documents import Document, read_text

CONFORMANCE_FOLDER = "conformance"
VECTORS_FILE = "vectors.json"


class RescalingFormat(Document):
    """One way in which a program rescales an accumulator `x` to a result `y`.

    `y = clamp(round((x + offset) * multiplier / 2**shift) + zero_point, low, high)`
    """

    name: str
    rounding: Rounding
    multiplier_bits: int = Field(ge=1, le=62)
    """The width of a multiplier in bits: multipliers lie between 0 and `2**multiplier_bits - 1`."""
    shift_min: int = Field(ge=0, le=62)
    shift_max: int = Field(ge=0, le=62)
    accumulator: IntFormat
    """The format of `x`."""
    output: IntFormat
    """The format of `y`."""
    offset: int
    zero_point: int
    low: int
    high: int
    per_channel: bool
    """True if each channel has its own multiplier, False if all elements share one."""
    used_by: tuple[str, ...]
    """The steps of the program that rescale in this way.

    It is empty for the general format, which is not taken from a step.
    """

    def result(self, x: int, multiplier: int, shift: int) -> int:
        """Returns the right result for one accumulator."""
        scaled = round_shift((x + self.offset) * multiplier, shift, self.rounding)
        return min(max(scaled + self.zero_point, self.low), self.high)


class VectorStep(Document):
    """The vectors that one step computes.

    Row `c` has the multiplier and the shift of channel `c`.
    """

    step: str
    """The name of the step of the conformance program. It reads the edge `<step>.accumulator`."""
    format: str
    """The name of the rescaling format."""
    multiplier: tuple[int, ...]
    shift: tuple[int, ...]
    accumulator: tuple[tuple[int, ...], ...]
    """The accumulators by row. A row with fewer vectors than another repeats its last vector."""
    expected: tuple[tuple[int, ...], ...]


class ConformanceVectors(Document):
    """The content of `vectors.json`: every rescaling format of a program, with vectors for each."""

    schema_version: Literal[1] = 1
    kind: Literal["photomask conformance vectors"] = "photomask conformance vectors"
    target: str
    """The name of the program's target."""
    formats: tuple[RescalingFormat, ...]
    steps: tuple[VectorStep, ...]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = {format.name for format in self.formats}
        for step in self.steps:
            sizes = {len(row) for row in (*step.accumulator, *step.expected)}
            rows = {len(part) for part in (step.multiplier, step.shift, step.accumulator)}
            if step.format not in names or rows != {len(step.expected)} or len(sizes) != 1:
                raise ValueError(
                    f"the vectors of step {step.step!r} are incomplete, or name an unknown format"
                )
        return self

    @property
    def count(self) -> int:
        """The number of results that are compared."""
        return sum(len(row) for step in self.steps for row in step.expected)

    def format(self, name: str) -> RescalingFormat:
        """Returns the rescaling format of a name."""
        return next(format for format in self.formats if format.name == name)

    def program(self, target: Target) -> IntegerProgram:
        """Returns the conformance program, which has a requantization for each `VectorStep`."""
        sources: list[Edge] = []
        results: list[Edge] = []
        steps: list[Step] = []
        tensors: dict[str, np.ndarray] = {}
        formats: dict[str, IntFormat] = {}
        for vectors in self.steps:
            format, shape = self.format(vectors.format), np.shape(vectors.expected)
            operator = Requantize(
                rounding=format.rounding,
                offset=format.offset,
                zero_point=format.zero_point,
                low=format.low,
                high=format.high,
            )
            parameters = {
                "multiplier": np.array(vectors.multiplier, np.int64).reshape(-1, 1),
                "shift": np.array(vectors.shift, np.int64).reshape(-1, 1),
            }
            if not format.per_channel:
                parameters = {role: values.reshape(1) for role, values in parameters.items()}
            names = {role: f"{vectors.step}.{role}" for role in parameters}
            tensors |= {names[role]: values for role, values in parameters.items()}
            formats |= {
                names["multiplier"]: IntFormat(bits=format.multiplier_bits, signed=False),
                names["shift"]: IntFormat(bits=max(1, format.shift_max.bit_length()), signed=False),
            }
            source = _edge(f"{vectors.step}.accumulator", shape, format.accumulator, "input")
            interval = operator.output_interval([source.interval], parameters)
            result = _edge(vectors.step, shape, format.output, "activation").model_copy(
                update={
                    "low": interval.low,
                    "high": interval.high,
                    "zero_point": format.zero_point,
                }
            )
            sources.append(source)
            results.append(result)
            steps.append(
                Step(
                    name=vectors.step,
                    operator=operator,
                    inputs=(source.name,),
                    output=result.name,
                    tensors=names,
                    node=format.name,
                    source=f"used by {', '.join(format.used_by) or 'every receiver'}",
                )
            )
        return IntegerProgram(
            target=target,
            inputs=[edge.name for edge in sources],
            outputs=[edge.name for edge in results],
            edges=[*sources, *results],
            steps=steps,
            tensors=tensors,
            formats=formats,
            provenance={"purpose": "conformance vectors of another program"},
        )

    def inputs(self) -> dict[str, np.ndarray]:
        """Returns the accumulators by input edge of the program, int64 [1, channels, vectors]."""
        return {
            f"{step.step}.accumulator": np.array([step.accumulator], np.int64)
            for step in self.steps
        }

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads the vectors of a conformance folder.

        Raises:
            DocumentError: missing, truncated or of another schema.
        """
        path = folder / VECTORS_FILE
        return cls.parse(read_text(path), str(path))


def _edge(name: str, shape: Sequence[int], format: IntFormat, role: str) -> Edge:
    return Edge(
        name=name,
        shape=(1, *shape),
        format=format,
        low=format.low,
        high=format.high,
        scale=(1.0,),
        zero_point=0,
        role=role,  # type: ignore[arg-type]
    )
