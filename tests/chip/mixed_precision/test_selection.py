"""The choice is optimal: by brute force on small problems, by dynamic programming on large ones."""

import builtins
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.mixed_precision.selection import Pair, Place, Problem, solve
from photomask.errors import MissingDependencyError, RecipeError

ERRORS = st.floats(0, 1e3).map(lambda x: float(f"{x:.6g}"))
COSTS = st.integers(0, 1_000_000)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    places = []
    for _ in range(draw(st.integers(1, 5))):
        options = draw(st.lists(st.tuples(ERRORS, COSTS), min_size=1, max_size=4))
        places.append(Place(*map(tuple, zip(*options, strict=True))))
    pairs = []
    for first, second in itertools.combinations(range(len(places)), 2):
        if draw(st.booleans()):
            rows, columns = len(places[first].costs), len(places[second].costs)
            table = draw(st.lists(COSTS, min_size=rows * columns, max_size=rows * columns))
            pairs.append(Pair(first, second, _rows(table, columns)))
    return Problem(tuple(places), tuple(pairs), fixed=draw(COSTS))


def _rows(table: list[int], columns: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(table[at : at + columns]) for at in range(0, len(table), columns))


def choices(problem: Problem) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(len(place.errors)) for place in problem.places)))


@settings(max_examples=60, deadline=None)
@given(problem=problems(), share=st.floats(0, 1))
def test_the_choice_is_the_best_of_all(problem: Problem, share: float):
    every = choices(problem)
    low, high = min(map(problem.cost, every)), max(map(problem.cost, every))
    budget = low + int(share * (high - low))
    found = solve(problem, budget)
    assert problem.cost(found) <= budget
    least = min(problem.error(choice) for choice in every if problem.cost(choice) <= budget)
    assert problem.error(found) == pytest.approx(least, rel=1e-9, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(problem=problems())
def test_a_budget_below_the_cheapest_names_what_would_be_possible(problem: Problem):
    low = min(map(problem.cost, choices(problem)))
    high = problem.cost(problem.best())
    with pytest.raises(RecipeError) as found:
        solve(problem, low - 1)
    assert f"costs {low:,}" in str(found.value)
    assert f"above {high:,} improves nothing" in str(found.value)
    assert problem.cost(solve(problem, low)) == low
    assert solve(problem, high) == problem.best()


def by_dynamic_programming(problem: Problem, budget: int) -> float:
    """Returns the least error, by a table over all costs."""
    best = np.zeros(budget + 1)
    for place in problem.places:
        reached = np.full(budget + 1, np.inf)
        for error, cost in zip(place.errors, place.costs, strict=True):
            if cost <= budget:
                shifted = best[: budget + 1 - cost] + error
                reached[cost:] = np.minimum(reached[cost:], shifted)
        best = reached
    return float(best[budget])


def test_a_network_of_forty_layers_is_solved_exactly():
    random = np.random.default_rng(0)
    sizes = random.choice([9, 144, 288, 576, 1152, 2304], 40)
    scale = 10.0 ** random.uniform(-6, 0, 40)
    widths = (2, 3, 4, 6, 8)
    problem = Problem(
        tuple(
            Place(
                tuple(float(scale[i] * 4.0**-b * random.uniform(0.5, 2)) for b in widths),
                tuple(int(sizes[i]) * b for b in widths),
            )
            for i in range(40)
        )
    )
    low, high = problem.cost(problem.cheapest()), problem.cost(problem.best())
    for budget in np.linspace(low, high, 8).astype(int)[1:-1]:
        found = solve(problem, int(budget))
        least = by_dynamic_programming(problem, int(budget))
        assert problem.error(found) == pytest.approx(least, rel=1e-12)


def test_a_missing_solver_is_named(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without_scipy(name: str, *args: object, **kwargs: object):
        if name.startswith("scipy"):
            raise ModuleNotFoundError(name, name=name)
        return real(name, *args, **kwargs)

    problem = Problem((Place((1.0, 0.0), (1, 2)), Place((1.0, 0.0), (1, 2))))
    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(MissingDependencyError, match=r"photomask\[search\]"):
        solve(problem, 3)
