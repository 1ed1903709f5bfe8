"""Chooses the widths for a budget, saves them, and computes the Pareto curve of budgets."""

import hashlib
import json
import math
from pathlib import Path
from typing import Literal, Self

from photomask.chip.mixed_precision.costs import Costs, problem_of
from photomask.chip.mixed_precision.selection import Problem, solve
from photomask.chip.mixed_precision.sensitivity import Sensitivities
from photomask.chip.mixed_precision.widths import recipe_with_widths
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.recipe import Recipe
from photomask.documents import Document, read_text, write_file
from photomask.errors import DocumentError, RecipeError, UsageError
from photomask.report import Shown, Table

UNITS = {
    "weight_bits": "bits of weights",
    "bit_operations": "bit operations",
    "cycles": "cycles",
}
"""The words for each unit of cost."""


class ParetoPoint(Document):
    """The choice of least error for one budget."""

    budget: int
    cost: int
    """The cost of the choice, which is at most the budget."""
    error: float
    bits: tuple[int, ...]
    """The width of each tensor, in the order of the sensitivities."""


class Allocation(Shown, Document):
    """A width for each tensor, with the sensitivities, costs and budget of the choice."""

    schema_version: Literal[1] = 1
    recipe_name: str
    """The name of the recipe that the widths extend."""
    sensitivities: Sensitivities
    costs: Costs
    budget: int
    cost: int
    error: float
    """The sum of the errors of the chosen widths, under the assumption that errors add up."""
    bits: tuple[int, ...]
    """The width of each tensor, in the order of the sensitivities."""
    content_sha256: str = ""

    def recipe(self, prepared: PreparedModel, name: str | None = None) -> Recipe:
        """Returns the model's recipe with a rule for each tensor.

        Args:
            prepared: the model that was measured, or one prepared in the same way.
            name: the name of the new recipe; None for the old name with `-mixed` appended.

        Raises:
            RecipeError: the model does not have a site, or the site has no weight.
        """
        tensors = self.sensitivities.tensors
        widths = [
            (tensor.site, tensor.role, bits)
            for tensor, bits in zip(tensors, self.bits, strict=True)
        ]
        return recipe_with_widths(prepared, widths, name or f"{self.recipe_name}-mixed")

    def fingerprint(self) -> str:
        """Returns the SHA-256 of all fields except `content_sha256`."""
        body = self.model_dump(mode="json", exclude={"content_sha256"})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes the allocation as JSON.

        Raises:
            ExportError: the file cannot be written.
        """
        write_file(Path(path), self.render().encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads an allocation, and checks that it is unaltered and consistent.

        Raises:
            DocumentError: the file is missing, altered or of another schema, or its widths, cost or
                error do not follow from its sensitivities, costs and budget.
        """
        found = cls.parse(read_text(Path(path)), str(path))
        if found.fingerprint() != found.content_sha256:
            raise DocumentError(
                f"{path}: the content hash does not match, so the file was altered; allocate again"
            )
        try:
            found._check()
        except DocumentError as error:
            raise DocumentError(f"{path}: {error}; allocate again") from error
        return found

    def _check(self) -> None:
        """Checks the widths, the cost and the error against sensitivities, costs and budget."""
        problem = problem_of(self.sensitivities, self.costs)
        tensors = self.sensitivities.tensors
        if len(self.bits) != len(tensors):
            raise DocumentError(
                f"field bits holds {len(self.bits)} widths for {len(tensors)} tensors"
            )
        for tensor, bits in zip(tensors, self.bits, strict=True):
            if bits not in tensor.bits:
                raise DocumentError(
                    f"field bits: {bits} is no candidate for the {tensor.role} of {tensor.site!r}; "
                    f"the candidates are {', '.join(map(str, tensor.bits))}"
                )
        choice = [t.bits.index(bits) for t, bits in zip(tensors, self.bits, strict=True)]
        cost, error = problem.cost(choice), problem.error(choice)
        if self.cost != cost or not math.isclose(self.error, error, rel_tol=1e-9):
            raise DocumentError(
                f"the widths cost {cost:,} with an error of {error:.6g}, but the fields cost and "
                f"error hold {self.cost:,} and {self.error:.6g}"
            )
        if cost > self.budget:
            raise DocumentError(
                f"the widths cost {cost:,}, which exceeds the budget of {self.budget:,}"
            )

    def shown(self) -> Table:
        """Returns a table with a row for each tensor."""
        unit = UNITS[self.costs.unit]
        rows = [("tensor", "of", "bits", "error", "share")]
        for tensor, bits in zip(self.sensitivities.tensors, self.bits, strict=True):
            error = tensor.errors[tensor.bits.index(bits)]
            share = f"{100 * error / self.error:.1f} %" if self.error else ""
            rows.append((tensor.site, tensor.role, str(bits), f"{error:.3g}", share))
        title = (
            f"widths by {self.sensitivities.measure.value} on {self.sensitivities.samples} samples:"
            f" {self.cost:,} of {self.budget:,} {unit}, error {self.error:.4g}"
        )
        return Table(title, rows)


def allocate(
    prepared: PreparedModel, sensitivities: Sensitivities, costs: Costs, budget: int
) -> Allocation:
    """Chooses the widths of least error whose cost is within a budget.

    The sum of the errors is minimized exactly by integer programming. It is an assumption that
    errors add up, which holds while they are small.

    Args:
        prepared: the model that was measured.
        sensitivities: the errors of all widths.
        costs: the costs of the same widths.
        budget: the budget, in the unit of the costs.

    Raises:
        RecipeError: no choice fits the budget; the message names the least and the largest useful
            budget.
        MissingDependencyError: SciPy is not installed.

    Source: the formulation of HAWQ-V3, Yao et al. 2021, section 3.4, arXiv:2011.10680.
    """
    problem = problem_of(sensitivities, costs)
    try:
        choice = solve(problem, budget)
    except RecipeError as error:
        raise RecipeError(f"{error}, in {UNITS[costs.unit]}") from None
    found = Allocation(
        recipe_name=prepared.recipe.name,
        sensitivities=sensitivities,
        costs=costs,
        budget=budget,
        cost=problem.cost(choice),
        error=problem.error(choice),
        bits=_bits(sensitivities, choice),
    )
    return found.model_copy(update={"content_sha256": found.fingerprint()})


def pareto(
    sensitivities: Sensitivities, costs: Costs, *, points: int = 24
) -> tuple[ParetoPoint, ...]:
    """Returns the choice of least error for each of some evenly spaced budgets.

    The budgets go from the least one that can be met to the largest useful one.

    Args:
        sensitivities: the errors of all widths.
        costs: the costs of the same widths.
        points: the number of budgets, at least 2; each is solved exactly.

    Raises:
        UsageError: `points` is below 2.
        MissingDependencyError: SciPy is not installed.
    """
    if points < 2:
        raise UsageError(f"points must be at least 2 for a curve, found {points}")
    problem = problem_of(sensitivities, costs)
    low, high = problem.cost(problem.cheapest()), problem.cost(problem.best())
    budgets = [low + (high - low) * step // (points - 1) for step in range(points)]
    return tuple(_point(problem, sensitivities, budget) for budget in budgets)


def _point(problem: Problem, sensitivities: Sensitivities, budget: int) -> ParetoPoint:
    choice = solve(problem, budget)
    return ParetoPoint(
        budget=budget,
        cost=problem.cost(choice),
        error=problem.error(choice),
        bits=_bits(sensitivities, choice),
    )


def _bits(sensitivities: Sensitivities, choice: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(tensor.bits[k] for tensor, k in zip(sensitivities.tensors, choice, strict=True))
