"""A report as it is read: a verdict, facts, and sections of text, tables and figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Tone(StrEnum):
    """What a cell's colour says."""

    PLAIN = "plain"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    QUIET = "quiet"


@dataclass(frozen=True)
class Cell:
    """Text in a table, with a bar behind it where a number is to be compared down the column."""

    text: str
    tone: Tone = Tone.PLAIN
    bar: float | None = None
    """Length of the bar, 0 to 1."""
    hint: str = ""
    """Shown when pointed at (HTML only)."""


Row = Sequence["Cell | str"]
"""One line of a table."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    number: bool = True
    """Aligned to the right, in figures of equal width."""
    in_terminal: bool = True


@dataclass(frozen=True)
class Figure:
    """A picture with what it says."""

    title: str
    caption: str
    draw: Callable[[], str]
    """Returns an `<svg>` element; called only where pictures are shown."""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, and a table or figures or both."""

    title: str
    text: str = ""
    columns: Sequence[Column] = ()
    rows: Sequence[Row] = ()
    figures: Sequence[Figure] = ()
    in_terminal: bool = True

    @property
    def brief_places(self) -> list[int]:
        """The places of the columns that terminals and notebooks show."""
        return [place for place, column in enumerate(self.columns) if column.in_terminal]


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    verdict: str
    passed: bool | None
    """None where that is not decided."""
    reasons: Sequence[str]
    """Why it did not pass."""
    facts: Sequence[tuple[str, str]]
    """A few numbers that matter most: what it is, and its value."""
    sections: Sequence[Section] = field(default_factory=tuple)
    footer: str = ""

    @property
    def brief_sections(self) -> list[Section]:
        """The sections that terminals and notebooks show."""
        return [section for section in self.sections if section.in_terminal and section.rows]
