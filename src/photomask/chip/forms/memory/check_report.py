"""What a check of an export found."""

from photomask.chip.forms.conformance.examination import ConformanceResult
from photomask.documents import Document
from photomask.report import Shown, Table


class Mismatch(Document):
    """One element that is not what the oracle computed."""

    sample: int
    edge: str
    step: str | None
    """The step that computes the edge; None for an input of the model."""
    operator: str | None
    node: str | None
    source: str | None
    """File and line of the model's code."""
    axes: tuple[str, ...]
    coordinate: tuple[int, ...]
    """In the tensor's own axes."""
    word: int
    lane: int
    expected: int
    found: int | None
    """None: the simulator wrote `x` or `z`."""
    suspects: tuple[str, ...]
    """The steps in one of which the fault lies: everything that they read matched. One step where
    all its inputs were there; more where edges between were not."""
    file: str

    def __str__(self) -> str:
        place = ", ".join(f"{a}={i}" for a, i in zip(self.axes, self.coordinate, strict=True))
        found = "x or z" if self.found is None else str(self.found)
        lines = [
            f"first mismatch: sample {self.sample}, edge {self.edge!r} ({self.file})",
            f"  at       {place}; word {self.word}, lane {self.lane}",
            f"  expected {self.expected}, found {found}",
        ]
        if self.step is None:
            lines.append("  this is an input of the model: the simulator was fed something else")
            return "\n".join(lines)
        lines.insert(1, f"  step     {self.step!r}: {self.operator}, from {self.source}")
        if len(self.suspects) == 1:
            lines.append(f"  all inputs of step {self.step!r} matched: the fault is in this step")
        else:
            steps = ", ".join(map(repr, self.suspects[:8]))
            more = f" and {len(self.suspects) - 8} more" if len(self.suspects) > 8 else ""
            lines.append(
                f"  not all inputs of step {self.step!r} are there: the fault is in one of "
                f"{len(self.suspects)} steps: {steps}{more}"
            )
        return "\n".join(lines)


class EdgeResult(Document):
    """How many elements of one edge were right, over all samples."""

    edge: str
    step: str | None
    operator: str | None
    matched: int = 0
    mismatched: int = 0
    """Elements that differ or are unknown."""
    missing: int = 0
    """Elements of files that are absent or too short."""

    @property
    def verdict(self) -> str:
        """One word."""
        if self.mismatched:
            return "MISMATCH"
        if not self.matched:
            return "absent"
        return "partial" if self.missing else "match"


class CheckReport(Shown, Document):
    """The result of a check; `print` shows it as a table."""

    subject: str
    """What was checked."""
    problems: tuple[str, ...]
    """Everything wrong with files, each naming its file."""
    edges: tuple[EdgeResult, ...]
    """In the order of computation."""
    first_mismatch: Mismatch | None
    files: int
    """Files read."""
    conformance: ConformanceResult | None = None
    """What a receiver made of the conformance vectors. None: the export itself was checked, or the
    program rescales nothing."""

    @property
    def passed(self) -> bool:
        """Whether nothing that was compared is wrong; `rounding_proven` says what was not."""
        wrong = self.conformance is not None and self.conformance.wrong
        return not self.problems and not wrong and not any(edge.mismatched for edge in self.edges)

    @property
    def rounding_proven(self) -> bool:
        """Whether a receiver's results of all conformance vectors are there and right."""
        return self.conformance is None or self.conformance.state == "proven"

    def shown(self) -> Table:
        """Returns a row for each edge of which something was found, and the verdict."""
        rows = [("edge", "step", "operator", "matched", "mismatched", "missing", "")]
        rows += [
            (
                edge.edge,
                edge.step or "(input)",
                edge.operator or "",
                str(edge.matched),
                str(edge.mismatched),
                str(edge.missing),
                edge.verdict,
            )
            for edge in self.edges
            if edge.matched or edge.mismatched
        ]
        lines = [f"problem: {problem}" for problem in self.problems]
        if self.first_mismatch is not None:
            lines.append(str(self.first_mismatch))
        if self.conformance is not None:
            lines.append(str(self.conformance))
        lines.append(self._summary())
        return Table(self.subject, rows, lines)

    def _summary(self) -> str:
        matched = sum(edge.matched for edge in self.edges)
        wrong = sum(edge.mismatched for edge in self.edges)
        compared = sum(1 for edge in self.edges if edge.matched or edge.mismatched)
        verdict = "FAILED"
        if self.passed:
            verdict = "PASSED" if self.rounding_proven else "MATCHED, rounding not proven"
        return (
            f"{verdict}: {self.files} files, {compared} of "
            f"{len(self.edges)} edges, {matched} elements matched, {wrong} mismatched, "
            f"{len(self.problems)} problem(s)"
        )
