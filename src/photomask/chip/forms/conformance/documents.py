"""Conformance vectors: numbers that prove how a receiver rescales, whatever a network's data are.

Golden vectors hold what a network computes from real data. There a product of accumulator and
multiplier almost never lies exactly between two integers, so that a receiver that rounds halves
down instead of up passes them all. The vectors here are chosen for that: for each format in which
a program rescales, accumulators and multipliers that make ties of both signs, their neighbours,
values beyond both ends, and the largest products.
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
    """One way in which a program rescales.

    `y = clamp(round((x + offset) * multiplier / 2**shift) + zero_point, low, high)`
    """

    name: str
    rounding: Rounding
    multiplier_bits: int = Field(ge=1, le=62)
    """Multipliers lie between 0 and `2**multiplier_bits - 1`."""
    shift_min: int = Field(ge=0, le=62)
    shift_max: int = Field(ge=0, le=62)
    accumulator: IntFormat
    """Of `x`."""
    output: IntFormat
    """Of `y`."""
    offset: int
    zero_point: int
    low: int
    high: int
    per_channel: bool
    """Whether each channel has a multiplier of its own; False: one for all elements."""
    used_by: tuple[str, ...]
    """Steps of the program; none for the general format, which every target's receiver has."""

    def result(self, x: int, multiplier: int, shift: int) -> int:
        """Returns what is right for one accumulator."""
        scaled = round_shift((x + self.offset) * multiplier, shift, self.rounding)
        return min(max(scaled + self.zero_point, self.low), self.high)


class VectorStep(Document):
    """Vectors that one step computes: row `c` has the multiplier and the shift of channel `c`."""

    step: str
    """Of the conformance program. It reads the edge `<step>.accumulator`."""
    format: str
    """Name of the rescaling format."""
    multiplier: tuple[int, ...]
    shift: tuple[int, ...]
    accumulator: tuple[tuple[int, ...], ...]
    """Row by row; where a row has fewer vectors than another, its last one is repeated."""
    expected: tuple[tuple[int, ...], ...]


class ConformanceVectors(Document):
    """What `vectors.json` holds: every rescaling format of a program, and vectors for each."""

    schema_version: Literal[1] = 1
    kind: Literal["photomask conformance vectors"] = "photomask conformance vectors"
    target: str
    """Name of the program's target."""
    formats: tuple[RescalingFormat, ...]
    steps: tuple[VectorStep, ...]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = {format.name for format in self.formats}
        for step in self.steps:
            sizes = {len(row) for row in (*step.accumulator, *step.expected)}
            rows = {len(part) for part in (step.multiplier, step.shift, step.accumulator)}
            if step.format not in names or rows != {len(step.expected)} or len(sizes) != 1:
                raise ValueError(f"the vectors of step {step.step!r} are not whole")
        return self

    @property
    def count(self) -> int:
        """How many results are compared."""
        return sum(len(row) for step in self.steps for row in step.expected)

    def format(self, name: str) -> RescalingFormat:
        """Returns a format by its name."""
        return next(format for format in self.formats if format.name == name)

    def program(self, target: Target) -> IntegerProgram:
        """Returns the conformance program: a requantization for each step of vectors."""
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
