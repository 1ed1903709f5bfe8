"""A measured value against its threshold."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer

from photomask.documents import Document
from photomask.report.page import Cell, Column, Section, Tone

Verdict = Literal["passed", "failed", "not decided"]
"""What a condition, or all of a report's conditions together, came to."""


class Check(Document):
    """One condition of a verdict.

    Attributes:
        name: what is measured.
        value: what was found; None where nothing could be measured.
        limit: what it is held against.
        direction: on which side of the limit the value must be.
        unit: of both.
        undecided: why the condition can be judged neither as met nor as missed, such as too few
            questions; empty where it can.
    """

    name: str
    value: float | None
    limit: float
    direction: Literal["at least", "at most"]
    unit: str = ""
    undecided: str = ""

    @classmethod
    def at_least(cls, name: str, value: float, limit: float, unit: str = "") -> Self:
        """Returns the check that a value is no smaller than its limit."""
        return cls(
            name=name, value=float(value), limit=float(limit), direction="at least", unit=unit
        )

    @classmethod
    def at_most(cls, name: str, value: float, limit: float, unit: str = "") -> Self:
        """Returns the check that a value is no larger than its limit."""
        return cls(
            name=name, value=float(value), limit=float(limit), direction="at most", unit=unit
        )

    def left_open(self, reason: str, *, measured: bool = True) -> Self:
        """Returns the same condition, not decided.

        Args:
            reason: why, as a clause.
            measured: false where there is no value at all.
        """
        value = self.value if measured else None
        return self.model_copy(update={"undecided": reason, "value": value})

    @property
    def passed(self) -> bool:
        """Whether the condition is known to hold."""
        return self.verdict == "passed"

    @property
    def verdict(self) -> Verdict:
        """Whether the condition holds, as far as that can be told."""
        if self.undecided or self.value is None:
            return "not decided"
        held = (
            self.value >= self.limit if self.direction == "at least" else self.value <= self.limit
        )
        return "passed" if held else "failed"

    @property
    def found(self) -> str:
        """The value with its unit."""
        return "–" if self.value is None else _quantity(self.value, self.unit)

    @property
    def condition(self) -> str:
        """The limit with its unit, such as `at least 90 %`."""
        return f"{self.direction} {_quantity(self.limit, self.unit)}"

    def __str__(self) -> str:
        found = f"{self.name}: {self.found}, must be {self.condition}"
        return f"{found}; not decided, {self.undecided}" if self.undecided else found

    @model_serializer(mode="wrap")
    def _without_empty_reason(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Writes decided checks as earlier versions did, which then read them."""
        found = handler(self)
        if not self.undecided:
            del found["undecided"]
        return found


def joint_verdict(checks: Iterable[Check]) -> Verdict:
    """Returns what all checks of a report come to: failed if one is, passed if all are."""
    verdicts = {check.verdict for check in checks}
    if "failed" in verdicts:
        return "failed"
    return "not decided" if "not decided" in verdicts else "passed"


def _quantity(value: float, unit: str) -> str:
    text = f"{value:.0f}" if value == int(value) else f"{value:.2f}"
    return f"{text} {unit}".rstrip()


_CELLS = {
    "passed": Cell("passed", Tone.GOOD),
    "failed": Cell("FAILED", Tone.BAD),
    "not decided": Cell("not decided", Tone.WARN),
}


def verdict_cell(verdict: Verdict) -> Cell:
    """Returns a verdict as a table shows it."""
    return _CELLS[verdict]


def check_section(checks: Sequence[Check]) -> Section:
    """Puts the conditions of a verdict into a table."""
    columns = (
        Column("condition", number=False),
        Column("found"),
        Column("required"),
        Column("verdict", number=False),
    )
    rows = [
        (check.name, check.found, check.condition, verdict_cell(check.verdict)) for check in checks
    ]
    return Section("Checks", "", columns, rows)
