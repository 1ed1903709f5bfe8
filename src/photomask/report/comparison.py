"""Two reports of one pipeline side by side: what differs, by how much, and what cannot be told."""

from collections.abc import Sequence
from typing import Literal

from photomask.documents import Document
from photomask.report.checks import Check
from photomask.report.page import Cell, Column, Page, Row, Section, Tone
from photomask.report.table import Shown

LONGEST = 40
"""Characters of a text that a row shows; the whole is shown when pointed at."""

Value = float | int | str | None


class Difference(Document):
    """One quantity in two reports.

    Attributes:
        name: what it is of: a layer, a task, or the quantity itself.
        first: in the first report; None where that does not say.
        second: in the second report.
        unit: of both.
        better: which direction is an improvement; empty where neither is.
        comparable: false where the two were measured on something else, so that their difference
            means nothing.
    """

    name: str
    first: Value
    second: Value
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    comparable: bool = True

    @property
    def differs(self) -> bool:
        """Whether the two reports say something else."""
        return self.first != self.second

    @property
    def change(self) -> float | None:
        """The second less the first; None where that means nothing."""
        first, second = self.first, self.second
        if not isinstance(first, int | float) or not isinstance(second, int | float):
            return None
        return second - first if self.comparable else None

    @property
    def is_worse(self) -> bool | None:
        """Whether the second is worse; None where that is neither so nor otherwise."""
        if not self.change or not self.better:
            return None
        return (self.change < 0) is (self.better == "higher")


class DifferenceGroup(Document):
    """Quantities of one kind, as one table.

    Attributes:
        title: of the table.
        text: what is compared.
        by_change: whether the largest change comes first; else the order is kept.
        entries: the quantities.
    """

    title: str
    text: str = ""
    by_change: bool = False
    entries: tuple[Difference, ...]


class Comparison(Shown, Document):
    """What differs between two reports; `print` shows it as tables.

    Attributes:
        subject: what the reports are of.
        names: of the two reports, such as their files.
        headline: what matters most, in a sentence.
        notes: what cannot be compared, and why.
        groups: the tables.
    """

    schema_version: Literal[1] = 1
    kind: Literal["photomask comparison"] = "photomask comparison"
    subject: str
    names: tuple[str, str]
    headline: str
    notes: tuple[str, ...]
    groups: tuple[DifferenceGroup, ...]

    def shown(self) -> Page:
        """Returns the page."""
        return self.page()

    def page(self) -> Page:
        """Puts the comparison into tables; quantities that do not differ are shown at the end."""
        differing = [self._section(group, group.title, True) for group in self.groups]
        same = [
            entry.model_copy(update={"name": f"{group.title}: {entry.name}"})
            for group in self.groups
            for entry in group.entries
            if not entry.differs
        ]
        rest = DifferenceGroup(title="What does not differ", entries=tuple(same))
        sections = [section for section in differing if section.rows]
        if same:
            sections.append(self._section(rest, rest.title, False))
        return Page(
            title=f"Comparison of two {self.subject}",
            verdict=self.headline,
            passed=None,
            judged=False,
            reasons=self.notes,
            facts=[("first", self.names[0]), ("second", self.names[1])],
            sections=sections,
            footer="A change is the second report less the first.",
        )

    def _section(self, group: DifferenceGroup, title: str, differing: bool) -> Section:
        entries = [entry for entry in group.entries if entry.differs is differing]
        if group.by_change:
            entries.sort(key=lambda entry: -abs(entry.change or 0.0))
        is_text = all(isinstance(entry.first, str | None) for entry in entries)
        return Section(
            title,
            group.text,
            _TEXTS if is_text else _NUMBERS,
            [_row(entry, is_text) for entry in entries],
            in_terminal=differing,
            closed=not differing,
        )


_NUMBERS = (
    Column("what", number=False),
    Column("first"),
    Column("second"),
    Column("change"),
)
_TEXTS = tuple(Column(title, number=False) for title in ("what", "first", "second"))


def _row(entry: Difference, is_text: bool) -> Row:
    values = (_cell(entry.first, entry.unit), _cell(entry.second, entry.unit))
    return (entry.name, *values) if is_text else (entry.name, *values, _change(entry))


def _cell(value: Value, unit: str) -> Cell:
    if value is None:
        return Cell("–", Tone.QUIET)
    if isinstance(value, str):
        return Cell(value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…", hint=value)
    return Cell(f"{_number(value)} {unit}".rstrip(), sort=float(value))


def _change(entry: Difference) -> Cell:
    if not entry.comparable:
        return Cell("not comparable", Tone.QUIET)
    if entry.change is None:
        return Cell("")
    sign = "+" if entry.change > 0 else ""
    tone = {True: Tone.BAD, False: Tone.GOOD, None: Tone.PLAIN}[entry.is_worse]
    return Cell(f"{sign}{_number(entry.change)} {entry.unit}".rstrip(), tone, sort=entry.change)


def _number(value: float) -> str:
    """Writes a count in full, anything else with four digits."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4g}"


def text_differences(first: dict[str, str], second: dict[str, str]) -> list[Difference]:
    """Returns a difference for each name of either document, in order.

    Of two texts of several lines, the lines that the other one lacks are shown.
    """
    found = []
    for name in dict.fromkeys([*first, *second]):
        before, after = first.get(name), second.get(name)
        if before and after and "\n" in before + after:
            before, after = _other_lines(before, after), _other_lines(after, before)
        found.append(Difference(name=name, first=before, second=after))
    return found


def _other_lines(text: str, other: str) -> str:
    """Returns the lines of a text that another one lacks, each without its indentation."""
    known = {line.strip() for line in other.splitlines()}
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip() not in known]
    return "; ".join(lines)


def check_differences(
    first: Sequence[Check], second: Sequence[Check], *, comparable: bool
) -> list[Difference]:
    """Returns the verdict of each condition in two reports, in order.

    Args:
        first: of the first report.
        second: of the second report.
        comparable: whether both were measured on the same data.
    """
    before = {check.name: check.verdict for check in first}
    after = {check.name: check.verdict for check in second}
    return [
        Difference(name=name, first=before.get(name), second=after.get(name), comparable=comparable)
        for name in dict.fromkeys([*before, *after])
    ]
