"""A measured value against its threshold."""

from collections.abc import Sequence
from typing import Literal, Self

from photomask.documents import Document
from photomask.report.page import Cell, Column, Section, Tone


class Check(Document):
    """One condition of a verdict."""

    name: str
    value: float
    limit: float
    direction: Literal["at least", "at most"]
    unit: str = ""

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

    @property
    def passed(self) -> bool:
        """Whether the condition holds."""
        if self.direction == "at least":
            return self.value >= self.limit
        return self.value <= self.limit

    @property
    def found(self) -> str:
        """The value with its unit."""
        return _quantity(self.value, self.unit)

    @property
    def condition(self) -> str:
        """The limit with its unit, such as `at least 90 %`."""
        return f"{self.direction} {_quantity(self.limit, self.unit)}"

    def __str__(self) -> str:
        return f"{self.name}: {self.found}, must be {self.condition}"


def _quantity(value: float, unit: str) -> str:
    text = f"{value:.0f}" if value == int(value) else f"{value:.2f}"
    return f"{text} {unit}".rstrip()


def check_section(checks: Sequence[Check]) -> Section:
    """Puts the conditions of a verdict into a table."""
    columns = (Column("condition", number=False), Column("found"), Column("required"), Column(""))
    rows = [
        (
            check.name,
            check.found,
            check.condition,
            Cell("passed", Tone.GOOD) if check.passed else Cell("FAILED", Tone.BAD),
        )
        for check in checks
    ]
    return Section("Checks", "", columns, rows)
