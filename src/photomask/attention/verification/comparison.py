"""Two verification reports of plans for one model, side by side."""

from __future__ import annotations

from collections.abc import Callable

from photomask.attention.verification.documents import PairCount, TaskResult
from photomask.attention.verification.report import AttentionReport
from photomask.errors import UsageError
from photomask.report import (
    Comparison,
    Difference,
    DifferenceGroup,
    check_differences,
    text_differences,
)


def compare_reports(
    first: AttentionReport,
    second: AttentionReport,
    *,
    names: tuple[str, str] = ("first", "second"),
) -> Comparison:
    """Compares what two plans do to one model: answers, tasks, layers, times, provenance.

    Where the reports were made from other prompts, accuracies and pairs are shown without a change,
    and the comparison says why.

    Args:
        first: what `verify` returned.
        second: the same of another plan, or of the same plan measured again.
        names: of the two.

    Raises:
        UsageError: the reports are of two models.
    """
    before, after = first.plan.model, second.plan.model
    if before.fingerprint != after.fingerprint:
        raise UsageError(
            f"the reports are of two models: {before.model_type} {before.fingerprint[:16]} and "
            f"{after.model_type} {after.fingerprint[:16]}; compare two plans for one model"
        )
    same_data, notes = _same_data(first, second)
    devices = {None if report.run is None else report.run.device for report in (first, second)}
    same_machine = len(devices) == 1 and None not in devices
    if not same_machine:
        notes.append("The reports are of two machines, or do not say: times are not compared.")
    return Comparison(
        subject="head plans",
        names=names,
        headline=_headline(first, second),
        notes=tuple(notes),
        groups=_groups(first, second, same_data, same_machine),
    )


def _groups(
    first: AttentionReport, second: AttentionReport, same_data: bool, same_machine: bool
) -> tuple[DifferenceGroup, ...]:
    """Returns the tables of a comparison."""
    return (
        DifferenceGroup(title="Verdict", entries=tuple(_verdicts(first, second, same_data))),
        DifferenceGroup(
            title="What the plan does", entries=tuple(_effects(first, second, same_data))
        ),
        DifferenceGroup(
            title="First token",
            entries=tuple(_first_token(first, second, same_machine and same_data)),
        ),
        DifferenceGroup(
            title="Accuracy of each task, sparse",
            by_change=True,
            entries=tuple(_tasks(first, second, same_data)),
        ),
        DifferenceGroup(
            title="Pairs of each layer",
            text="Share of the query-key pairs that is computed.",
            by_change=True,
            entries=tuple(
                _pairs("layer {}", 0, first.pairs_by_layer, second.pairs_by_layer, same_data)
            ),
        ),
        DifferenceGroup(
            title="Pairs of each image",
            text="Share of the query-key pairs that is computed.",
            by_change=True,
            entries=tuple(
                _pairs("image {}", 1, first.pairs_by_image, second.pairs_by_image, same_data)
            ),
        ),
        DifferenceGroup(
            title="Heads by layer",
            text="Patterns of the heads of each layer: s sink, i intra-image, b both, # dense.",
            entries=tuple(_heads(first, second)),
        ),
        DifferenceGroup(
            title="Provenance",
            entries=tuple(text_differences(dict(first.provenance()), dict(second.provenance()))),
        ),
    )


def _same_data(first: AttentionReport, second: AttentionReport) -> tuple[bool, list[str]]:
    """Tells whether both were measured on the same prompts, and what to say if not."""
    if not first.data_sha256 or not second.data_sha256:
        same = first.prompts == second.prompts and first.tokens == second.tokens
        note = "A report of an earlier version does not say which prompts it was made from."
        return same, [note] if same else [f"{note} {NOT_COMPARED}"]
    if first.data_sha256 == second.data_sha256:
        return True, []
    return False, [f"The reports are of different prompts. {NOT_COMPARED}"]


NOT_COMPARED = "Accuracies, pairs and times are shown, and not compared."


def _verdicts(
    first: AttentionReport, second: AttentionReport, comparable: bool
) -> list[Difference]:
    found = [Difference(name="verdict", first=first.verdict, second=second.verdict)]
    return found + check_differences(first.checks, second.checks, comparable=comparable)


_EFFECTS: tuple[tuple[str, str, str, Callable[[AttentionReport], float | None]], ...] = (
    ("accuracy, dense, mean over tasks", "%", "", lambda report: report.dense_accuracy),
    ("accuracy, sparse, mean over tasks", "%", "higher", lambda report: report.sparse_accuracy),
    ("points lost by the worst task", "points", "lower", lambda report: report.worst_task_loss),
    ("prompts whose answer changed", "", "lower", lambda report: report.changed),
    ("prompts with the same first token", "%", "higher", lambda report: report.agreement),
    ("output lost, first token's logits", "", "lower", lambda report: report.lost_output),
    ("divergence of the first token, mean", "nats", "lower", lambda report: report.divergence_mean),
    ("its 95th percentile", "nats", "lower", lambda report: report.divergence_p95),
    ("query-key pairs left", "%", "lower", lambda report: 100 * report.density),
)


def _effects(first: AttentionReport, second: AttentionReport, comparable: bool) -> list[Difference]:
    return [
        Difference.model_validate(
            {
                "name": name,
                "first": value(first),
                "second": value(second),
                "unit": unit,
                "better": better,
                "comparable": comparable,
            }
        )
        for name, unit, better, value in _EFFECTS
    ]


def _first_token(
    first: AttentionReport, second: AttentionReport, comparable: bool
) -> list[Difference]:
    before, after = first.first_token, second.first_token
    if before is None or after is None:
        return []
    pairs = (
        ("time, dense, median", "ms", before.dense_ms.p50, after.dense_ms.p50),
        ("time, sparse, median", "ms", before.sparse_ms.p50, after.sparse_ms.p50),
        ("peak memory, dense", "B", before.dense_bytes, after.dense_bytes),
        ("peak memory, sparse", "B", before.sparse_bytes, after.sparse_bytes),
    )
    return [
        Difference(name=name, first=a, second=b, unit=unit, better="lower", comparable=comparable)
        for name, unit, a, b in pairs
    ]


def _tasks(first: AttentionReport, second: AttentionReport, comparable: bool) -> list[Difference]:
    before = {task.task: task for task in first.tasks}
    after = {task.task: task for task in second.tasks}

    def accuracy(task: TaskResult | None) -> float | None:
        return None if task is None else task.sparse_accuracy

    return [
        Difference(
            name=name,
            first=accuracy(before.get(name)),
            second=accuracy(after.get(name)),
            unit="%",
            better="higher",
            comparable=comparable,
        )
        for name in dict.fromkeys([*before, *after])
    ]


def _pairs(
    name: str,
    start: int,
    before: tuple[PairCount, ...],
    after: tuple[PairCount, ...],
    comparable: bool,
) -> list[Difference]:
    return [
        Difference(
            name=name.format(place + start),
            first=100 * before[place].density if place < len(before) else None,
            second=100 * after[place].density if place < len(after) else None,
            unit="%",
            better="lower",
            comparable=comparable,
        )
        for place in range(max(len(before), len(after)))
    ]


def _heads(first: AttentionReport, second: AttentionReport) -> list[Difference]:
    rows = zip(first.plan.patterns, second.plan.patterns, strict=True)
    return [
        Difference(
            name=f"layer {layer}",
            first="".join(pattern.mark for pattern in before),
            second="".join(pattern.mark for pattern in after),
        )
        for layer, (before, after) in enumerate(rows)
    ]


def _headline(first: AttentionReport, second: AttentionReport) -> str:
    pairs = f"{100 * first.density:.1f} % → {100 * second.density:.1f} % of the pairs"
    verdicts = f"{first.verdict} → {second.verdict}"
    if first.sparse_accuracy is None or second.sparse_accuracy is None:
        return f"{verdicts}; {pairs}"
    accuracy = f"accuracy {first.sparse_accuracy:.2f} % → {second.sparse_accuracy:.2f} %"
    return f"{verdicts}; {pairs}; {accuracy}"
