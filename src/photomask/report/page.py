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
    sort: float | None = None
    """The number by which the table is sorted, and which is written as CSV. None: the number at the
    start of the text, such as 1.08e6 for `1.08 MB`. An infinite one sorts, and is written as its
    text."""
    link: str = ""
    """An anchor of the same page, such as `row_anchor` returns; empty for none (HTML only)."""


Row = Sequence["Cell | str"]
"""One line of a table. Its first cell names it, and `row_anchor` leads to it."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    number: bool = True
    """Aligned to the right, in figures of equal width, and sorted by value."""
    in_terminal: bool = True
    meaning: str = ""
    """A sentence that explains the column (HTML only)."""


@dataclass(frozen=True)
class Figure:
    """A picture with what it says."""

    title: str
    caption: str
    draw: Callable[[], str]
    """Returns an `<svg>` element; called only where pictures are shown. Elements inside may be
    links to anchors of the page, and may have a `<title>`, which is shown when pointed at."""
    scrolls: bool = False
    """Keeps the size that the `<svg>` element's own width and height say, in a box that scrolls;
    for graphs that are taller or wider than a screen. Else the picture fills the page's width."""


@dataclass(frozen=True)
class Fold:
    """A text that is shown when its heading is opened, with its lines as they are (HTML only)."""

    heading: str
    text: str


@dataclass(frozen=True)
class Section:
    """A heading and a sentence, and below them what there is of figures, facts, a table, texts."""

    title: str
    text: str = ""
    columns: Sequence[Column] = ()
    rows: Sequence[Row] = ()
    figures: Sequence[Figure] = ()
    in_terminal: bool = True
    caption: str = ""
    """Says what the table holds; the title where it is empty."""
    totals: Sequence[Row] = ()
    """Lines below the rows that sorting and filtering leave where they are."""
    facts: Sequence[tuple[str, str]] = ()
    """Names and values, such as versions and commands; values may be long."""
    folds: Sequence[Fold] = ()
    closed: bool = False
    """Shown only when its heading is opened; for what few readers look for (HTML only)."""

    @property
    def brief_places(self) -> list[int]:
        """The places of the columns that terminals and notebooks show."""
        return [place for place, column in enumerate(self.columns) if column.in_terminal]

    @property
    def table_rows(self) -> list[Row]:
        """The rows and the totals below them."""
        return [*self.rows, *self.totals]


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
    judged: bool = True
    """Whether the page has a verdict at all; a comparison of two reports has none."""

    @property
    def brief_sections(self) -> list[Section]:
        """The sections that terminals and notebooks show."""
        return [
            section
            for section in self.sections
            if section.in_terminal and (section.rows or section.facts)
        ]
