"""Collects the trials of a study, and finds the points that no other point dominates."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from photomask.chip.exploration.identity import StudyIdentity
from photomask.chip.exploration.points import METRICS, ExploredPoint, Metric, figure
from photomask.documents import Document, SealedDocument, read_text, write_file
from photomask.errors import UsageError
from photomask.report import Shown, Table

OUTCOMES = ("measured", "repeated", "infeasible", "stopped")


class Front(Shown, Document):
    """The points that no other point of a study dominates.

    Attributes:
        objectives: the metrics that are compared.
        points: the points, the most accurate first, or by the first objective.
    """

    schema_version: Literal[1] = 1
    objectives: tuple[Metric, ...]
    points: tuple[ExploredPoint, ...]

    def shown(self) -> Table:
        """Returns a row for each point."""
        rows = [("trial", "point", *(METRICS[name] for name in METRICS))]
        for each in self.points:
            found = each.figures()
            rows.append(
                (str(each.number), each.point.label, *(figure(found, name) for name in METRICS))
            )
        return Table(f"front over {', '.join(self.objectives)}", rows)


class Exploration(Shown, SealedDocument):
    """All trials of a study that came to an end.

    Attributes:
        identity: what the study explores.
        trials: the trials in the order of their numbers.
        interrupted: how many trials ended without a result, because their process was interrupted
            or failed. They do not count.
    """

    schema_version: Literal[1] = 1
    identity: StudyIdentity
    trials: tuple[ExploredPoint, ...]
    interrupted: int = 0

    @property
    def objectives(self) -> tuple[Metric, ...]:
        """The metrics that the study improves."""
        return self.identity.objectives

    @property
    def measured(self) -> tuple[ExploredPoint, ...]:
        """The trials with figures, each point once."""
        return tuple(trial for trial in self.trials if trial.outcome == "measured")

    def front(self, objectives: Sequence[Metric] | None = None) -> Front:
        """Returns the points that no other point dominates.

        A point dominates another if it is at least as good in every objective and better in one.
        Of points with equal figures, the first is kept.

        Args:
            objectives: the metrics to compare; None for those of the study.

        Raises:
            UsageError: a metric is unknown or there is none.
        """
        chosen = check_objectives(self.objectives if objectives is None else objectives)
        points = non_dominated(self.measured, chosen)
        best_first = sorted(points, key=lambda each: _costs(each, chosen)[0])
        return Front(objectives=chosen, points=tuple(best_first))

    def trial(self, number: int) -> ExploredPoint:
        """Returns a trial by its number.

        Raises:
            UsageError: there is no trial of that number.
        """
        for trial in self.trials:
            if trial.number == number:
                return trial
        raise UsageError(f"there is no finished trial {number} among {len(self.trials)}")

    def counts(self) -> dict[str, int]:
        """Returns the number of trials by their outcome."""
        found = Counter(trial.outcome for trial in self.trials)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    def reasons(self) -> dict[str, int]:
        """Returns how often each reason made a point infeasible, the most frequent first."""
        found = Counter(trial.reason for trial in self.trials if trial.outcome == "infeasible")
        return dict(found.most_common())

    def save(self, path: str | Path) -> None:
        """Writes the exploration as JSON.

        Raises:
            ExportError: the file cannot be written.
        """
        write_file(Path(path), self.sealed().render().encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads an exploration, and checks that it is unaltered.

        Raises:
            DocumentError: the file is missing, altered or of another schema.
        """
        return cls.parse(read_text(Path(path)), str(path))

    def shown(self) -> Table:
        """Returns the front, and below it what became of the other trials."""
        table = self.front().shown()
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts().items())
        notes = [f"{len(self.trials)} trials: {counts}"]
        if self.interrupted:
            notes.append(f"{self.interrupted} more were interrupted and do not count")
        notes += [f"infeasible {count}×: {reason}" for reason, count in self.reasons().items()][:5]
        return Table(table.title, table.rows, notes)


def check_objectives(objectives: Sequence[Metric]) -> tuple[Metric, ...]:
    """Returns objectives if they are different metrics.

    Raises:
        UsageError: there is none, one is unknown, or one is listed twice.
    """
    found = tuple(objectives)
    if isinstance(objectives, str) or not found or not {*found} <= {*METRICS}:
        raise UsageError(f"objectives must be some of {', '.join(METRICS)}, found {objectives!r}")
    if len({*found}) < len(found):
        raise UsageError(f"an objective is listed twice: {', '.join(found)}")
    return found


def non_dominated(
    points: Sequence[ExploredPoint], objectives: tuple[Metric, ...]
) -> list[ExploredPoint]:
    """Returns the points that no other point dominates; of equal points the first."""
    costs = [_costs(point, objectives) for point in points]
    kept = []
    for at, (point, own) in enumerate(zip(points, costs, strict=True)):
        beaten = any(_dominates(other, own) for other in costs) or own in costs[:at]
        if not beaten:
            kept.append(point)
    return kept


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _costs(point: ExploredPoint, objectives: tuple[Metric, ...]) -> tuple[float, ...]:
    """Returns the figures of a point with the accuracy negated, so that less is always better."""
    values = point.figures().values(objectives)
    return tuple(
        -value if name == "accuracy" else value
        for name, value in zip(objectives, values, strict=True)
    )
