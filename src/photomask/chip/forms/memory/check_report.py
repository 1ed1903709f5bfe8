"""The report of a check: what was compared, what differs, and the first mismatch."""

from photomask.chip.forms.conformance.examination import ConformanceResult
from photomask.documents import Document
from photomask.report import Shown, Table


class Mismatch(Document):
    """An element that differs from what the oracle computed."""

    sample: int
    edge: str
    step: str | None
    """The step that computes the edge; None for an input of the model."""
    operator: str | None
    node: str | None
    source: str | None
    """The file and line of the model's code."""
    axes: tuple[str, ...]
    coordinate: tuple[int, ...]
    """The index of the element in the tensor's own axes."""
    word: int
    lane: int
    expected: int
    found: int | None
    """The value that was found; None if the simulator wrote `x` or `z`."""
    suspects: tuple[str, ...]
    """The steps that may contain the fault.

    It is one step if all inputs of that step matched. If edges before it were not compared, the
    list also holds the steps that compute them, back to the edges that matched.
    """
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
            lines.append(
                "  this is an input of the model: the simulator got other input data than the "
                "export holds"
            )
            return "\n".join(lines)
        lines.insert(1, f"  step     {self.step!r}: {self.operator}, from {self.source}")
        if len(self.suspects) == 1:
            lines.append(f"  all inputs of step {self.step!r} matched: the fault is in this step")
        else:
            steps = ", ".join(map(repr, self.suspects[:8]))
            more = f" and {len(self.suspects) - 8} more" if len(self.suspects) > 8 else ""
            lines.append(
                f"  not all inputs of step {self.step!r} were compared: the fault is in one of "
                f"{len(self.suspects)} steps: {steps}{more}"
            )
        return "\n".join(lines)


class EdgeResult(Document):
    """How many elements of one edge match, over all samples."""

    edge: str
    step: str | None
    operator: str | None
    matched: int = 0
    mismatched: int = 0
    """The number of elements that differ or are unknown."""
    missing: int = 0
    """The number of elements that no file holds, because it is absent or too short."""

    @property
    def verdict(self) -> str:
        """The result in one word: "match", "partial", "absent" or "MISMATCH"."""
        if self.mismatched:
            return "MISMATCH"
        if not self.matched:
            return "absent"
        return "partial" if self.missing else "match"


class CheckReport(Shown, Document):
    """The result of a check; `print` shows it as a table."""

    subject: str
    """A description of what was checked."""
    problems: tuple[str, ...]
    """Everything that is wrong with files; each problem names its file."""
    edges: tuple[EdgeResult, ...]
    """The result of each edge, in the order of computation."""
    first_mismatch: Mismatch | None
    files: int
    """The number of files that were read."""
    conformance: ConformanceResult | None = None
    """What the conformance vectors show about a receiver.

    It is None if the export itself was checked, or if the program has no requantization.
    """

    @property
    def passed(self) -> bool:
        """Whether nothing that was compared is wrong.

        It does not say whether the rounding was tested; `rounding_proven` does.
        """
        wrong = self.conformance is not None and self.conformance.wrong
        return not self.problems and not wrong and not any(edge.mismatched for edge in self.edges)

    @property
    def rounding_proven(self) -> bool:
        """Whether the rounding is proven, or needs no proof.

        It is proven if a receiver's results of all conformance vectors are present and right.
        """
        return self.conformance is None or self.conformance.state == "proven"

    def shown(self) -> Table:
        """Returns a row for each edge that was compared, the problems and the verdict."""
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
