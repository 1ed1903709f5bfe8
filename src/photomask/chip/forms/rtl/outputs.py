"""Reads what the testbench writes: the words of each step's output, and its cycles."""

import re
from pathlib import Path

import numpy as np

from photomask.chip.forms.rtl.design import RtlDesign, RtlStep
from photomask.chip.forms.rtl.memory_map import words_from_hex
from photomask.documents import read_text
from photomask.errors import DocumentError, EngineError


def read_cycles(output: Path, design: RtlDesign) -> dict[int, int]:
    """Returns the cycles of each step by its number.

    Raises:
        DocumentError: the file is missing or holds something else.
        EngineError: the run is incomplete.
    """
    path = output / "cycles.txt"
    lines = [line.split() for line in read_text(path).splitlines()]
    if not lines or lines[-1][:1] != ["total"]:
        last = " ".join(lines[-1]) if lines else "no line"
        raise EngineError(
            f"the design did not finish: cycles.txt ends with {last!r}. A possible cause is an "
            "array that never raises sum_valid, or raises it too rarely"
        )
    cycles: dict[int, int] = {}
    for line in lines[:-1]:
        if len(line) != 2 or not all(re.fullmatch("[0-9]{1,18}", part) for part in line):
            raise DocumentError(f"{path} holds {' '.join(line)!r}, expected a step and its cycles")
        cycles[int(line[0])] = int(line[1])
    missing = [step.name for step in design.steps if step.passes and step.number not in cycles]
    if missing:
        raise EngineError(f"the design ended without completing step {missing[0]!r}")
    return cycles


def read_edge(path: Path, step: RtlStep) -> np.ndarray:
    """Returns the integers of a step's output, in the edge's shape.

    Raises:
        DocumentError: the file is missing or holds something else.
    """
    place = step.place
    lines = [
        line for line in read_text(path).split("\n") if line and not line.startswith(("//", "@"))
    ]
    if len(lines) != place.words:
        raise DocumentError(f"{path} holds {len(lines)} words, expected {place.words}")
    try:
        words = words_from_hex(lines, place.lanes, place.lane_bits, place.signed)
    except ValueError as error:
        raise DocumentError(f"{path} holds text that is not a hexadecimal word") from error
    return place.values_of(words, step.shape)
