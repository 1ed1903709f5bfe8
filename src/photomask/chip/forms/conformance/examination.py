"""Compares a receiver's results with the conformance vectors, and names the receiver's fault."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from photomask.chip.forms.conformance.documents import (
    ConformanceVectors,
    RescalingFormat,
    VectorStep,
)
from photomask.chip.forms.conformance.receiver_faults import (
    ROUNDING_WORDS,
    ReceiverFault,
    receiver_faults,
)
from photomask.documents import Document


@dataclass(frozen=True)
class Computed:
    """The results that a receiver computed for one step of vectors."""

    values: np.ndarray
    """int64 [channels, vectors]."""
    known: np.ndarray
    """bool of the same shape; False for elements that have no value."""


class WrongVector(Document):
    """A vector for which the receiver's result differs from the expected one."""

    format: str
    step: str
    channel: int
    position: int
    accumulator: int
    multiplier: int
    shift: int
    expected: int
    found: int

    def __str__(self) -> str:
        return (
            f"first wrong vector: step {self.step!r}, channel {self.channel}, position "
            f"{self.position}: accumulator {self.accumulator}, multiplier {self.multiplier}, shift "
            f"{self.shift}: expected {self.expected}, found {self.found}"
        )


class FormatResult(Document):
    """How many vectors of one rescaling format are right."""

    format: str
    used_by: tuple[str, ...]
    vectors: int
    compared: int
    wrong: int


class ConformanceResult(Document):
    """What the conformance vectors prove about a receiver's rescaling."""

    target: str
    formats: tuple[FormatResult, ...]
    faults: tuple[str, ...]
    """The possible faults of the receiver, in words.

    There are several if the results cannot tell them apart. There are none if the receiver is
    right, or if no known fault explains its results.
    """
    rounding: str
    """How the target rounds, in words."""
    first_wrong: WrongVector | None

    @classmethod
    def without_vectors(cls) -> Self:
        """Returns the result for an export that has no vectors, as exports of old versions do."""
        return cls(target="", formats=(), faults=(), rounding="", first_wrong=None)

    @property
    def vectors(self) -> int:
        """The number of vectors."""
        return sum(format.vectors for format in self.formats)

    @property
    def compared(self) -> int:
        """The number of vectors that were compared."""
        return sum(format.compared for format in self.formats)

    @property
    def wrong(self) -> int:
        """The number of vectors whose results differ."""
        return sum(format.wrong for format in self.formats)

    @property
    def state(self) -> Literal["proven", "wrong", "incomplete", "not checked"]:
        """What is known of the receiver's rescaling."""
        if self.wrong:
            return "wrong"
        if not self.compared:
            return "not checked"
        return "proven" if self.compared == self.vectors else "incomplete"

    def __str__(self) -> str:
        if not self.formats:
            return (
                "rounding NOT PROVEN: the export holds no conformance vectors; export the program "
                "again"
            )
        if self.state == "not checked":
            return (
                "rounding NOT PROVEN: no results for the conformance vectors were found. Golden "
                "vectors almost never hold a tie; run the program in conformance/ as well"
            )
        if self.state == "incomplete":
            absent = [one.format for one in self.formats if one.compared < one.vectors]
            return (
                f"rounding NOT PROVEN: {self.compared} of {self.vectors} conformance vectors were "
                f"found, and all of them are right; vectors are missing for {', '.join(absent)}"
            )
        if self.state == "proven":
            return (
                f"rounding proven: all {self.vectors} conformance vectors of "
                f"{len(self.formats)} rescaling formats are right"
            )
        wrong = [
            f"  {one.format}: {one.wrong} of {one.compared} vectors wrong"
            + (f" (used by {', '.join(one.used_by[:3])}{' …' if one.used_by[3:] else ''})")
            * bool(one.used_by)
            for one in self.formats
            if one.wrong
        ]
        return "\n".join([f"rounding WRONG: {self.diagnosis}", *wrong, f"  {self.first_wrong}"])

    @property
    def diagnosis(self) -> str:
        """The receiver's fault, as a sentence without its subject."""
        if not self.faults:
            return "no known fault explains the results"
        named = " or ".join(self.faults)
        if not named.startswith(("rounds", "drops")):
            return named
        return f"{named}; target {self.target!r} {self.rounding}"


def examine(vectors: ConformanceVectors, found: Mapping[str, Computed]) -> ConformanceResult:
    """Compares what a receiver computed with conformance vectors, and names its fault.

    Args:
        vectors: the conformance vectors.
        found: the results by step. Steps that were not run are absent.
    """
    by_format = {
        format.name: [step for step in vectors.steps if step.format == format.name]
        for format in vectors.formats
    }
    results = [_result(format, by_format[format.name], found) for format in vectors.formats]
    wrong = [format for format, one in zip(vectors.formats, results, strict=True) if one.wrong]
    right = [
        format
        for format, one in zip(vectors.formats, results, strict=True)
        if one.compared and not one.wrong
    ]
    return ConformanceResult(
        target=vectors.target,
        formats=tuple(results),
        faults=tuple(_names(wrong, right, by_format, found)),
        rounding=ROUNDING_WORDS[vectors.formats[0].rounding],
        first_wrong=_first_wrong(vectors, found),
    )


def _result(
    format: RescalingFormat, steps: Sequence[VectorStep], found: Mapping[str, Computed]
) -> FormatResult:
    wrong = compared = 0
    for step in steps:
        if step.step in found:
            one = found[step.step]
            compared += int(one.known.sum())
            wrong += int(((one.values != np.array(step.expected)) & one.known).sum())
    return FormatResult(
        format=format.name,
        used_by=format.used_by,
        vectors=sum(np.size(step.expected) for step in steps),
        compared=compared,
        wrong=wrong,
    )


def _names(
    wrong: Sequence[RescalingFormat],
    right: Sequence[RescalingFormat],
    steps: Mapping[str, Sequence[VectorStep]],
    found: Mapping[str, Computed],
) -> list[str]:
    """Returns the faults that explain all wrong formats.

    If some of them also explain the formats that are right, only those are returned.
    """
    if not wrong:
        return []
    faults = receiver_faults(wrong[0].rounding)
    for format in wrong:
        faults = [f for f in faults if _explains(f, format, steps[format.name], found)]
    everywhere = list(faults)
    for format in right:
        everywhere = [f for f in everywhere if _explains(f, format, steps[format.name], found)]
    return [fault.words for fault in everywhere or faults]


def _explains(
    fault: ReceiverFault,
    format: RescalingFormat,
    steps: Sequence[VectorStep],
    found: Mapping[str, Computed],
) -> bool:
    """Tells whether the fault gives every result, compared in the bits of the output."""
    modulus = 1 << format.output.bits
    for step in steps:
        if step.step not in found:
            continue
        computed = found[step.step]
        rows = zip(computed.values.tolist(), computed.known.tolist(), strict=True)
        for row, (values, known) in enumerate(rows):
            scale = (step.multiplier[row], step.shift[row])
            for x, value, is_known in zip(step.accumulator[row], values, known, strict=True):
                faulty = fault.result(format, x, *scale) if is_known else None
                if faulty is not None and (faulty - value) % modulus:
                    return False
    return True


def _first_wrong(vectors: ConformanceVectors, found: Mapping[str, Computed]) -> WrongVector | None:
    for step in vectors.steps:
        if step.step not in found:
            continue
        one = found[step.step]
        different = np.argwhere((one.values != np.array(step.expected)) & one.known)
        if len(different):
            channel, position = different[0].tolist()
            return WrongVector(
                format=step.format,
                step=step.step,
                channel=channel,
                position=position,
                accumulator=step.accumulator[channel][position],
                multiplier=step.multiplier[channel],
                shift=step.shift[channel],
                expected=step.expected[channel][position],
                found=int(one.values[channel, position]),
            )
    return None
