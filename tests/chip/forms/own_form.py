"""A form of a user's own: a text file with the program's constants and golden outputs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from photomask.chip.forms import FormCheck, Problem, Sample, Writers, each_step, require_none
from photomask.chip.operators import (
    OPERATORS,
    Add,
    Clamp,
    Convolution,
    Linear,
    MaxPool,
    Operator,
    Requantize,
    Reshape,
)
from photomask.chip.program import IntegerProgram, NumpyEngine, Step
from photomask.documents import read_text, write_file
from photomask.errors import DocumentError

LISTING: Writers[[Step], str] = Writers("listing")


WRITTEN = (Add, Clamp, Convolution, Linear, MaxPool, Requantize, Reshape)


@LISTING.of(*WRITTEN)
def listed(operator: Operator, step: Step) -> str:
    """Returns the line of a step."""
    return f"{step.output} = {type(operator).__name__}({', '.join(step.inputs)})"


for _operator in OPERATORS:
    if _operator not in WRITTEN:
        LISTING.refuses(_operator, "the listing is for small convolutional networks")


@dataclass(frozen=True)
class ListingForm:
    """A listing of the steps, and what comes out for each sample."""

    name: ClassVar[str] = "listing"
    title: ClassVar[str] = "a listing of the steps, for people"
    place: ClassVar[str] = "listing.json"
    comment: str = ""

    def refusal(self, operator: type[Operator]) -> str | None:
        return LISTING.refusal(operator)

    def problems(self, program: IntegerProgram) -> list[Problem]:
        return self.lines(program)[1]

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> int:
        lines, problems = self.lines(program)
        require_none(problems, "a listing")
        write_file(place, self.text(program, lines, samples).encode())
        return len(lines)

    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        text = self.text(program, self.lines(program)[0], samples)
        if read_text(place) != text:
            raise DocumentError(f"{place} is not what was exported")
        return FormCheck(sum(value.size for s in samples for value in s.values()), 0)

    def lines(self, program: IntegerProgram) -> tuple[list[str], list[Problem]]:
        return each_step(program, lambda step: LISTING.write(step.operator, step))

    def text(self, program: IntegerProgram, lines: list[str], samples: Sequence[Sample]) -> str:
        engine = NumpyEngine(program)
        golden = [
            {name: np.asarray(value).tolist() for name, value in engine.run(sample).items()}
            for sample in samples
        ]
        return json.dumps({"comment": self.comment, "steps": lines, "golden": golden}, indent=1)
