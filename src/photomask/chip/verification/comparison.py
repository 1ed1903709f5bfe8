"""Two verification reports of programs for one model, side by side."""

import math
from collections.abc import Callable

from photomask.chip.cost.estimates import Costs
from photomask.chip.verification.documents import LayerReport, OutputReport
from photomask.chip.verification.report import Report
from photomask.errors import UsageError
from photomask.report import (
    Comparison,
    Difference,
    DifferenceGroup,
    check_differences,
    text_differences,
)

SAME_VALUES = 1e-4
"""Relative difference of the float model's values that other machines and versions may make."""


def compare_reports(
    first: Report, second: Report, *, names: tuple[str, str] = ("first", "second")
) -> Comparison:
    """Compares two programs of one model: verdicts, accuracy, layers, sizes, provenance.

    The programs may have other recipes, targets and versions. Where the float model saw other data
    or had other weights, which its values show, what was measured is shown without a change, and
    the comparison says why.

    Args:
        first: what `verify` returned.
        second: the same of another program.
        names: of the two.

    Raises:
        UsageError: the reports are of two models: they share no layer of the same shape.
    """
    before = {layer.node: layer for layer in first.layers}
    after = {layer.node: layer for layer in second.layers}
    shared = [
        node for node, layer in before.items() if node in after and layer.shape == after[node].shape
    ]
    if not any(before[node].operator != "input" for node in shared):
        raise UsageError(
            "the reports are of two models: they share no layer of the same name and shape; "
            f"{names[0]} begins with {_first_names(first)}, {names[1]} with {_first_names(second)}"
        )
    notes = _notes(first, second, [(before[node], after[node]) for node in shared])
    comparable = not notes
    if missing := len(set(before) ^ set(after)):
        notes.append(f"{missing} layers are in one of the two reports alone.")
    return Comparison(
        subject="integer programs",
        names=names,
        headline=_headline(first, second, comparable),
        notes=tuple(notes),
        groups=(
            DifferenceGroup(title="Verdict", entries=tuple(_verdicts(first, second, comparable))),
            DifferenceGroup(title="Outputs", entries=tuple(_outputs(first, second, comparable))),
            DifferenceGroup(title="Sizes and work", entries=tuple(_totals(first, second))),
            *_layer_groups(before, after, comparable),
            *_cost_groups(first, second),
            DifferenceGroup(title="Target", entries=tuple(_target(first, second))),
            DifferenceGroup(title="Provenance", entries=tuple(_provenance(first, second))),
        ),
    )


def _first_names(report: Report) -> str:
    return ", ".join(layer.node for layer in report.layers[:3])


def _notes(
    first: Report, second: Report, layers: list[tuple[LayerReport, LayerReport]]
) -> list[str]:
    """Says why measurements cannot be compared; nothing where they can."""
    not_compared = "Accuracies and SQNR are shown, and not compared."
    if (first.samples, first.layer_samples) != (second.samples, second.layer_samples):
        return [
            f"The reports are of {first.samples:,} and {second.samples:,} samples, their layers of "
            f"{first.layer_samples:,} and {second.layer_samples:,}. {not_compared}"
        ]
    hashes = [{each.name: each.sha256 for each in report.data} for report in (first, second)]
    if all(hashes) and hashes[0] != hashes[1]:
        names = [name for name in hashes[0] if hashes[0][name] != hashes[1].get(name)]
        which = ", ".join(map(repr, names)) or "the labels"
        return [f"The reports were made on other data: {which} differ. {not_compared}"]
    for before, after in layers:
        if not _are_close(before.observed, after.observed):
            cause = "weights or data" if before.operator != "input" else "data"
            return [
                f"The float models saw or had other {cause}: the values of layer {before.node!r} "
                f"lie between {before.observed[0]:.4g} and {before.observed[1]:.4g} in the first, "
                f"{after.observed[0]:.4g} and {after.observed[1]:.4g} in the second report. "
                f"{not_compared}"
            ]
    return []


def _are_close(first: tuple[float, float], second: tuple[float, float]) -> bool:
    size = max(abs(value) for value in (*first, *second))
    return all(
        math.isclose(a, b, rel_tol=SAME_VALUES, abs_tol=SAME_VALUES * size)
        for a, b in zip(first, second, strict=True)
    )


def _verdicts(first: Report, second: Report, comparable: bool) -> list[Difference]:
    words = ("passed" if report.passed else "failed" for report in (first, second))
    found = [Difference(name="verdict", first=next(words), second=next(words))]
    return found + check_differences(first.checks, second.checks, comparable=comparable)


_OUTPUT: tuple[tuple[str, str, Callable[[OutputReport], float | None]], ...] = (
    ("top-1, float", "%", lambda output: output.float_top1),
    ("top-1, integer", "%", lambda output: output.integer_top1),
    ("same class", "%", lambda output: output.agreement),
    ("SQNR", "dB", lambda output: output.sqnr_db),
)


def _outputs(first: Report, second: Report, comparable: bool) -> list[Difference]:
    before = {output.name: output for output in first.outputs}
    after = {output.name: output for output in second.outputs}
    return [
        Difference(
            name=f"{name}: {what}",
            first=value(before[name]) if name in before else None,
            second=value(after[name]) if name in after else None,
            unit=unit,
            better="higher",
            comparable=comparable,
        )
        for name in dict.fromkeys([*before, *after])
        for what, unit, value in _OUTPUT
    ]


def _totals(first: Report, second: Report) -> list[Difference]:
    before, after = first.totals, second.totals
    found = [
        Difference(name="parameters", first=before.parameters, second=after.parameters),
        Difference(
            name="weights, packed",
            first=before.weight_bytes,
            second=after.weight_bytes,
            unit="B",
            better="lower",
        ),
        Difference(
            name="all constants, packed",
            first=before.integer_bytes,
            second=after.integer_bytes,
            unit="B",
            better="lower",
        ),
        Difference(
            name="multiply-accumulates of a sample",
            first=before.multiply_accumulates,
            second=after.multiply_accumulates,
            better="lower",
        ),
    ]
    if first.memory is not None and second.memory is not None:
        peaks = [report.peak_activation_bytes for report in (first.memory, second.memory)]
        found.append(
            Difference(
                name="activations at once",
                first=peaks[0],
                second=peaks[1],
                unit="B",
                better="lower",
            )
        )
    return found


def _cost_groups(first: Report, second: Report) -> list[DifferenceGroup]:
    """Returns cycles and energy, where both reports have an estimate for one accelerator."""
    before, after = first.hardware, second.hardware
    if before is None or after is None:
        return []
    comparable = before.accelerator == after.accelerator
    totals = [
        Difference.model_validate(
            {
                "name": name,
                "first": value(before.totals),
                "second": value(after.totals),
                "unit": unit,
                "better": "lower",
                "comparable": comparable,
            }
        )
        for name, unit, value in _COSTS
    ]
    cycles = [
        {step.step: step.costs.cycles.total for step in report.steps} for report in (before, after)
    ]
    steps = [
        Difference(
            name=name,
            first=cycles[0].get(name),
            second=cycles[1].get(name),
            better="lower",
            comparable=comparable,
        )
        for name in dict.fromkeys([*cycles[0], *cycles[1]])
    ]
    names = (before.accelerator.name, after.accelerator.name)
    text = "" if comparable else f"The estimates are for two accelerators: {' and '.join(names)}."
    return [
        DifferenceGroup(title="Cost of a sample", text=text, entries=tuple(totals)),
        DifferenceGroup(title="Steps: cycles", by_change=True, entries=tuple(steps)),
    ]


_COSTS: tuple[tuple[str, str, Callable[[Costs], float]], ...] = (
    ("cycles", "", lambda costs: costs.cycles.total),
    ("cycles of waiting for memory", "", lambda costs: costs.cycles.stall),
    ("bytes from and to external memory", "B", lambda costs: costs.external.total),
    ("energy", "pJ", lambda costs: costs.energy.total_pj),
)


_LAYER: tuple[tuple[str, str, str, bool, Callable[[LayerReport], float | str | None]], ...] = (
    ("Layers: SQNR", "dB", "higher", True, lambda layer: layer.sqnr_db),
    ("Layers: outputs cut off", "%", "lower", True, lambda layer: layer.saturation),
    ("Layers: format of the output", "", "", False, lambda layer: str(layer.format)),
    (
        "Layers: format of the weights",
        "",
        "",
        False,
        lambda layer: None if layer.weight is None else str(layer.weight.format),
    ),
    (
        "Layers: bits of the accumulator, proven",
        "bits",
        "lower",
        False,
        lambda layer: None if layer.accumulator is None else layer.accumulator.proven_bits,
    ),
    ("Layers: bytes of constants", "B", "lower", False, lambda layer: layer.bytes),
)
"""Tables of layers: title, unit, which direction is better, whether data matters, the value."""


def _layer_groups(
    before: dict[str, LayerReport], after: dict[str, LayerReport], comparable: bool
) -> list[DifferenceGroup]:
    return [
        DifferenceGroup(
            title=title,
            by_change=True,
            entries=tuple(
                Difference.model_validate(
                    {
                        "name": node,
                        "first": value(before[node]) if node in before else None,
                        "second": value(after[node]) if node in after else None,
                        "unit": unit,
                        "better": better,
                        "comparable": comparable or not is_measured,
                    }
                )
                for node in dict.fromkeys([*before, *after])
            ),
        )
        for title, unit, better, is_measured, value in _LAYER
    ]


def _target(first: Report, second: Report) -> list[Difference]:
    before, after = (
        {name: _text(value) for name, value in report.target.model_dump(mode="json").items()}
        for report in (first, second)
    )
    return text_differences(before, after)


def _provenance(first: Report, second: Report) -> list[Difference]:
    found = [
        Difference(name="program", first=first.program_sha256, second=second.program_sha256),
        Difference(
            name="Photomask", first=first.photomask_version, second=second.photomask_version
        ),
        Difference(name="samples", first=first.samples, second=second.samples),
        *text_differences(_data(first), _data(second)),
    ]
    found += text_differences(first.provenance, second.provenance)
    runs = [dict(report.run.facts()) if report.run else {} for report in (first, second)]
    return found + text_differences(runs[0], runs[1])


def _data(report: Report) -> dict[str, str]:
    """Returns the hash of each tensor of a report's data; none in reports of version 0.1."""
    return {f"{record.what} {record.name}": record.sha256 for record in report.data}


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _headline(first: Report, second: Report, comparable: bool) -> str:
    words = ("passed" if report.passed else "failed" for report in (first, second))
    text = f"{next(words)} → {next(words)}"
    before, after = first.outputs[0], second.outputs[0]
    if before.integer_top1 is not None and after.integer_top1 is not None:
        text += f"; top-1 {before.integer_top1:.2f} % → {after.integer_top1:.2f} %"
    text += f"; output SQNR {before.sqnr_db:.1f} dB → {after.sqnr_db:.1f} dB"
    return text if comparable else f"{text}; measured on different data or models"
