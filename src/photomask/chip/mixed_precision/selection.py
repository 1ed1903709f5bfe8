"""Chooses one option for each decision, with the least error within a budget, exactly."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from photomask.chip.mixed_precision.solver_output import without_known_lines
from photomask.dependencies import OptionalPackage
from photomask.errors import EngineError, RecipeError

_LARGEST = 2.0**20
"""The number that the largest error is scaled to.

The absolute gap of the solver, 1e-6, is then 1e-12 of the largest error.
"""


@dataclass(frozen=True)
class Place:
    """A decision between several options.

    Attributes:
        errors: the error of each option, at least 0.
        costs: the cost of each option.
    """

    errors: tuple[float, ...]
    costs: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """The costs that depend on two decisions.

    Attributes:
        first: the position of one decision.
        second: the position of the other decision.
        costs: the costs, indexed by the option of the first and then of the second decision.
    """

    first: int
    second: int
    costs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Problem:
    """The problem of minimizing the sum of errors while the sum of costs is within a budget.

    Attributes:
        places: the decisions.
        pairs: the costs that depend on two decisions.
        fixed: the cost that depends on no decision.
    """

    places: tuple[Place, ...]
    pairs: tuple[Pair, ...] = ()
    fixed: int = 0

    def error(self, choice: Sequence[int]) -> float:
        """Returns the sum of the errors of the chosen options."""
        return sum(place.errors[k] for place, k in zip(self.places, choice, strict=True))

    def cost(self, choice: Sequence[int]) -> int:
        """Returns the sum of the costs of the chosen options, including the fixed cost."""
        own = sum(place.costs[k] for place, k in zip(self.places, choice, strict=True))
        shared = sum(pair.costs[choice[pair.first]][choice[pair.second]] for pair in self.pairs)
        return self.fixed + own + shared

    def best(self) -> tuple[int, ...]:
        """Returns the choice of least error for any cost, with the first of equal options."""
        return tuple(int(np.argmin(place.errors)) for place in self.places)

    def cheapest(self) -> tuple[int, ...]:
        """Returns a choice of least cost."""
        if self.pairs:
            return _minimize(self, self._costs(), None)
        return tuple(int(np.argmin(place.costs)) for place in self.places)

    def _costs(self) -> np.ndarray:
        """Returns the costs of all options, then those of all pairs of options."""
        own = [cost for place in self.places for cost in place.costs]
        shared = [cost for pair in self.pairs for row in pair.costs for cost in row]
        return np.array(own + shared, dtype=np.float64)

    def _errors(self) -> np.ndarray:
        own = [error for place in self.places for error in place.errors]
        padding = sum(len(row) for pair in self.pairs for row in pair.costs)
        return np.array(own + [0.0] * padding)


def solve(problem: Problem, budget: int) -> tuple[int, ...]:
    """Returns the choice of least error whose cost is within a budget.

    Args:
        problem: the problem to solve.
        budget: the budget, in the unit of the costs.

    Raises:
        RecipeError: no choice fits the budget; the message names the least and the largest useful
            budget.
        EngineError: the solver fails.
        MissingDependencyError: SciPy is not installed.
    """
    best = problem.best()
    if problem.cost(best) <= budget:
        return best
    cheapest = problem.cheapest()
    if problem.cost(cheapest) > budget:
        raise RecipeError(
            f"a budget of {budget:,} cannot be met: the cheapest choice costs "
            f"{problem.cost(cheapest):,}, and a budget above {problem.cost(best):,} improves "
            "nothing; choose one between the two"
        )
    choice = _minimize(problem, problem._errors(), budget)
    if problem.cost(choice) > budget:
        raise EngineError(
            f"the solver returned a choice that costs {problem.cost(choice):,}, which exceeds the "
            f"budget of {budget:,}, because the costs differ too much in size for its tolerances; "
            "choose another budget"
        )
    # By rounding inside the solver, its choice can be slightly worse than the cheapest one.
    return min((choice, cheapest), key=problem.error)


def _minimize(problem: Problem, objective: np.ndarray, budget: int | None) -> tuple[int, ...]:
    """Returns the solution of the integer program.

    Each option has a variable, 0 or 1, and the variables of a decision add up to 1. Each pair of
    options of two paired decisions also has a variable. Over a row of pairs, these add up to the
    variable of the first decision's option, and over a column to that of the second. Each is
    therefore the product of two options, and the cost is linear.

    Raises:
        EngineError: the solver finds no solution.
    """
    with OptionalPackage("scipy", "search", "the search for widths"):
        from scipy.optimize import Bounds, LinearConstraint, milp
    matrix, total = _equalities(problem)
    constraints: list[Any] = [LinearConstraint(matrix, total, total)]  # type: ignore[arg-type]
    if budget is not None:
        costs = problem._costs()
        divisor = float(np.gcd.reduce(costs.astype(np.int64))) or 1.0
        limit = (budget - problem.fixed) // int(divisor)
        constraints.append(LinearConstraint(costs[None] / divisor, -np.inf, limit))
    decisions = sum(len(place.errors) for place in problem.places)
    integrality = np.zeros(len(objective))
    integrality[:decisions] = 1
    largest = np.abs(objective).max() or 1.0
    with without_known_lines():
        found = milp(
            objective / largest * _LARGEST,
            integrality=integrality,
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": 0.0},
        )
    if found.x is None:
        raise EngineError(
            f"the solver found no choice of widths: {found.message}; choose another budget"
        )
    choice, start = [], 0
    for place in problem.places:
        choice.append(int(np.argmax(found.x[start : start + len(place.errors)])))
        start += len(place.errors)
    return tuple(choice)


def _equalities(problem: Problem) -> tuple[Any, np.ndarray]:
    """Returns the matrix and the right-hand side of the equations that every choice fulfils."""
    from scipy.sparse import csr_array

    sizes = [len(place.errors) for place in problem.places]
    first = list(itertools.accumulate(sizes, initial=0))
    entries: list[tuple[int, int, float]] = []
    total: list[float] = []
    for position, size in enumerate(sizes):
        entries += [(len(total), first[position] + k, 1.0) for k in range(size)]
        total.append(1.0)
    column = first[-1]
    for pair in problem.pairs:
        rows, columns = len(pair.costs), len(pair.costs[0])
        products = np.arange(rows * columns).reshape(rows, columns) + column
        for place, lines in ((pair.first, products), (pair.second, products.T)):
            for k, line in enumerate(lines):
                entries += [(len(total), int(variable), 1.0) for variable in line]
                entries.append((len(total), first[place] + k, -1.0))
                total.append(0.0)
        column += rows * columns
    at, variables, values = zip(*entries, strict=True)
    return csr_array((values, (at, variables)), shape=(len(total), column)), np.array(total)
