"""Draws the Pareto curve of budgets."""

import io
from collections.abc import Sequence
from pathlib import Path

from photomask.chip.mixed_precision.allocation import UNITS, ParetoPoint
from photomask.chip.mixed_precision.costs import Costs, problem_of
from photomask.chip.mixed_precision.sensitivity import Sensitivities
from photomask.dependencies import OptionalPackage
from photomask.documents import write_file
from photomask.errors import UsageError

INK = "#222222"
ACCENT = "#1f6feb"
OTHER = "#b35900"


def save_pareto_curve(
    sensitivities: Sensitivities,
    costs: Costs,
    points: Sequence[ParetoPoint],
    path: str | Path,
) -> None:
    """Draws the least error against the cost, and the points with one width for all tensors.

    Args:
        sensitivities: the errors of all widths.
        costs: the costs of the same widths.
        points: the points that `pareto` returns.
        path: the path of the file, which ends with `.svg`, `.png` or `.pdf`.

    Raises:
        UsageError: the path has another ending.
        MissingDependencyError: matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(
            f"a picture must be a .svg, .png or .pdf file, found {path.name!r}; change the ending"
        )
    with OptionalPackage("matplotlib", "report", "the picture of a search"):
        import matplotlib
        from matplotlib.figure import Figure
    with matplotlib.rc_context({"svg.hashsalt": "pareto", "font.size": 9.0}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(
            [point.cost for point in points],
            [point.error for point in points],
            "o-",
            color=ACCENT,
            markersize=3.5,
            linewidth=1.0,
            label="a width for each tensor",
        )
        uniform = _uniform(sensitivities, costs)
        axes.plot(
            [cost for _, cost, _ in uniform],
            [error for *_, error in uniform],
            "s",
            color=OTHER,
            markersize=4.5,
            label="one width for all",
        )
        for bits, cost, error in uniform:
            axes.annotate(
                f"{bits} bits", (cost, error), (5, 4), textcoords="offset points", color=INK
            )
        axes.set_yscale("log")
        axes.set_xlabel(UNITS[costs.unit])
        axes.set_ylabel(f"sum of errors, {sensitivities.measure.value}")
        axes.grid(visible=True, linewidth=0.4, color="#dddddd")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        buffer = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(buffer, format=path.suffix[1:], metadata=metadata, dpi=150)
    write_file(path, buffer.getvalue())


def _uniform(sensitivities: Sensitivities, costs: Costs) -> list[tuple[int, int, float]]:
    """Returns bits, cost and error for each width that is a candidate of all tensors."""
    problem = problem_of(sensitivities, costs)
    shared = set(sensitivities.tensors[0].bits)
    for tensor in sensitivities.tensors:
        shared &= set(tensor.bits)
    found = []
    for bits in sorted(shared):
        choice = [tensor.bits.index(bits) for tensor in sensitivities.tensors]
        found.append((bits, problem.cost(choice), problem.error(choice)))
    return found
