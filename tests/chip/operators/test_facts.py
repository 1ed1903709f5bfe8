"""What operators say about themselves is what they do."""

import itertools
import math
from collections.abc import Iterator
from types import new_class
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from tests.chip.operators.influence import influences, sources
from tests.chip.operators.operator_cases import GENERATORS, Case, Source

from photomask.chip.operators import (
    OPERATORS,
    Family,
    LaneOperations,
    MatrixProduct,
    Operator,
    Scaling,
)
from photomask.errors import OperatorError

OPERATORS: dict[str, type[Operator]] = {
    operator.model_fields["kind"].default: operator for operator in OPERATORS
}
SEEDS = range(25)
MOST_ELEMENTS = 60


def of(family: Family) -> list[str]:
    return sorted(kind for kind, one in OPERATORS.items() if one.family is family)


def small_cases(kind: str) -> Iterator[Case]:
    for seed in SEEDS:
        case = GENERATORS[kind](Source(seed))
        if sum(x.size for x in case.inputs) <= MOST_ELEMENTS:
            yield case


def result_of(case: Case) -> np.ndarray:
    return case.operator.run_numpy(case.inputs, case.parameters)


def shapes_of(case: Case) -> list[tuple[int, ...]]:
    return [x.shape for x in case.inputs]


# What a class must say.

FACTS: dict[str, Any] = {
    "kind": "doubled",
    "family": Family.ELEMENTWISE,
    "scaling": Scaling.KEPT,
    "accumulates": False,
    "learned_roles": ("table",),
    "output_shape": lambda self, shapes, parameters: shapes[0],
    "output_interval": lambda self, inputs, parameters: inputs[0].scaled(2),
    "run_numpy": lambda self, inputs, parameters: 2 * inputs[0],
    "compile_torch": lambda self, inputs, parameters, device: lambda x: 2 * x,
    "work": lambda self, shapes, parameters: LaneOperations(additions=math.prod(shapes[0])),
}


def define(facts: dict[str, Any], name: str = "Doubled") -> type[Operator]:
    annotations = {
        fact: Literal[value] if fact == "kind" else ClassVar
        for fact, value in facts.items()
        if not callable(value)
    }
    members = {"parameter_roles": ("table",), **facts}
    members |= {"__annotations__": {"parameter_roles": ClassVar, **annotations}}
    return new_class(name, (Operator,), {}, lambda namespace: namespace.update(members))


def test_an_operator_of_ones_own_with_every_fact_can_be_defined():
    operator = define(FACTS)()
    assert operator.model_dump() == {"kind": "doubled"}
    assert operator.run_numpy([np.array([[3]])], {}) == 6


@pytest.mark.parametrize("fact", FACTS)
def test_an_operator_without_a_fact_cannot_be_defined(fact: str):
    facts = {name: value for name, value in FACTS.items() if name != fact}
    with pytest.raises(OperatorError, match=rf"Doubled cannot be defined: `{fact}` must"):
        define(facts)


def test_all_missing_facts_are_named_at_once():
    with pytest.raises(OperatorError) as refusal:
        define({"kind": "doubled"})
    assert all(f"`{fact}`" in str(refusal.value) for fact in FACTS if fact != "kind")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"family": "elementwise"}, "`family` must be a class variable of type Family"),
        ({"accumulates": 1}, "`accumulates` must be a class variable of type bool"),
        ({"learned_roles": ("gain",)}, r"`learned_roles` names \['gain'\]"),
        ({"family": Family.REDUCTION}, "`input_lane_axis` must be defined"),
        ({"family": Family.REARRANGEMENT}, "`axis_before` must be defined"),
    ],
)
def test_a_fact_that_cannot_be_right_is_refused(change: dict[str, Any], problem: str):
    with pytest.raises(OperatorError, match=problem):
        define(FACTS | change)


def test_a_base_of_others_may_leave_facts_to_those():
    define({"kind": "doubled"}, name="_Doubled")


# Sums.


def taken_over(case: Case) -> set[int]:
    """Integers that a result has without computing: of inputs, of tables, of attributes."""
    arrays = [*case.inputs, *case.parameters.values()]
    attributes = [value for value in vars(case.operator).values() if isinstance(value, int)]
    return {int(n) for array in arrays for n in array.flat} | set(attributes)


@pytest.mark.parametrize("kind", sorted(set(OPERATORS) - {"requantize"}))
def test_an_operator_accumulates_if_its_results_are_new_numbers(kind: str):
    cases = [GENERATORS[kind](Source(seed)) for seed in SEEDS]
    computed = [not set(result_of(case).flat) <= taken_over(case) for case in cases]
    assert any(computed) == OPERATORS[kind].accumulates


def test_a_requantization_brings_numbers_back_to_its_format():
    for seed in SEEDS:
        case = GENERATORS["requantize"](Source(seed))
        operator: Any = case.operator
        assert not operator.accumulates
        assert operator.low <= result_of(case).min() <= result_of(case).max() <= operator.high


def test_an_epilogue_makes_one_number_of_one_and_no_sum():
    assert sorted(kind for kind, one in OPERATORS.items() if one.is_epilogue()) == [
        "clamp",
        "lookup",
        "requantize",
    ]


# Axes.


def aligned(position: tuple[int, ...], place: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Pairs the indices of both from the last axis on."""
    return zip(reversed(position), reversed(place), strict=False)


@pytest.mark.parametrize("kind", of(Family.ELEMENTWISE))
def test_an_elementwise_operator_reads_only_what_lies_at_its_place(kind: str):
    for case in small_cases(kind):
        for number, position, place in influences(case):
            sizes = case.inputs[number].shape
            expected = [
                0 if size == 1 else index
                for size, index in zip(reversed(sizes), reversed(place), strict=False)
            ]
            assert list(reversed(position)) == expected


@pytest.mark.parametrize("kind", of(Family.MOVE))
def test_a_move_leaves_every_axis_what_it_is(kind: str):
    for case in small_cases(kind):
        origin: dict[tuple[int, int, int], int] = {}
        for number, position, place in sources(case):
            if case.inputs[number].shape[0] == 1:
                position = (place[0], *position[1:])  # a constant is there for every sample
            for axis, (before, behind) in enumerate(zip(position, place, strict=True)):
                assert origin.setdefault((number, axis, behind), before) == before


@pytest.mark.parametrize("kind", of(Family.REARRANGEMENT))
def test_an_axis_that_a_rearrangement_names_is_the_same_axis_before_and_behind(kind: str):
    moved = False
    for case in small_cases(kind):
        (shape,) = shapes_of(case)
        output = result_of(case).shape
        for axis in range(len(output)):
            before = case.operator.axis_before(axis, shape, output)
            if before is None:
                moved = True
                continue
            assert case.operator.axis_behind(before, shape, output) is not None
            assert shape[before] == output[axis]
            moved |= before != axis
            assert all(position[before] == place[axis] for _, position, place in sources(case))
    assert moved, f"{kind} leaves every axis in its place"


@pytest.mark.parametrize("kind", of(Family.REDUCTION))
def test_a_reduction_keeps_the_axes_that_it_does_not_reduce(kind: str):
    for case in small_cases(kind):
        operator: Any = case.operator
        axes = operator.axes if kind == "sum" else (case.inputs[0].ndim - 1,)
        keeps = kind == "softmax" or operator.keep_axes
        for number, position, place in influences(case):
            if number:
                continue  # a mask broadcasts
            kept = [n for axis, n in enumerate(position) if axis not in axes]
            there = [n for axis, n in enumerate(place) if not (keeps and axis in axes)]
            assert kept == there


@pytest.mark.parametrize("kind", of(Family.ROW))
def test_an_operator_of_rows_mixes_only_the_last_axis(kind: str):
    for case in small_cases(kind):
        rank = result_of(case).ndim
        assert case.operator.output_lane_axis(shapes_of(case), result_of(case).shape) == rank - 1
        for number, position, place in influences(case):
            if number == 0:
                rows = position if kind == "embedding" else position[:-1]
                assert rows == place[:-1]


@pytest.mark.parametrize("kind", of(Family.MAP))
def test_an_operator_of_maps_keeps_samples_and_groups_of_channels_apart(kind: str):
    for case in small_cases(kind):
        groups = getattr(case.operator, "groups", case.inputs[0].shape[1])
        read = case.inputs[0].shape[1] // groups
        written = result_of(case).shape[1] // groups
        for _, position, place in influences(case):
            assert position[0] == place[0]
            assert position[1] // read == place[1] // written


def test_axes_keep_their_meaning_but_behind_rows_and_rearrangements():
    assert {family for family in Family if not family.keeps_axes} == {
        Family.ROW,
        Family.REARRANGEMENT,
    }


@pytest.mark.parametrize("kind", sorted(OPERATORS))
def test_lanes_lie_along_an_axis_that_there_is(kind: str):
    for seed in SEEDS:
        case = GENERATORS[kind](Source(seed))
        shapes, output = shapes_of(case), result_of(case).shape
        axes = [case.operator.input_lane_axis(n, shape) for n, shape in enumerate(shapes)]
        pairs = [*zip(axes, shapes, strict=True)]
        pairs.append((case.operator.output_lane_axis(shapes, output), output))
        assert all(axis is None or 0 <= axis < len(shape) for axis, shape in pairs)


# Work.


def plain_count(kind: str, case: Case) -> int:
    """Operations counted one by one."""
    operator: Any = case.operator
    output = result_of(case).shape
    results = [*itertools.product(*map(range, output))]
    if kind in ("convolution", "linear"):
        return sum(1 for _ in results for _ in case.parameters["weight"][0].flat)
    if kind == "matmul":
        return sum(1 for _ in results for _ in range(case.inputs[0].shape[-1]))
    if kind == "add":
        return sum(1 for _ in results for _ in case.inputs)
    if kind == "max_pool":
        return sum(1 for _ in results for _ in itertools.product(*map(range, operator.kernel)))
    if kind in ("average_pool", "sum"):
        return len(influences(case))  # pairs of an element and a sum that it is part of
    if kind in ("softmax", "normalize"):
        return sum(1 for _ in results for _ in ("peak or sum", "total", "division"))
    if kind in ("reshape", "constant"):
        return 0
    return len(results)


@pytest.mark.parametrize("kind", sorted(OPERATORS))
def test_the_work_of_an_operator_is_what_one_counts(kind: str):
    cases = [
        case
        for case in small_cases(kind)
        if all(interval.high > interval.low for interval in case.intervals)
    ]
    assert len(cases) >= 4
    for case in cases:
        work = case.operator.work(shapes_of(case), case.parameters)
        products = isinstance(work, MatrixProduct)
        assert products == (kind in ("convolution", "linear", "matmul"))
        total = work.multiply_accumulates if products else work.total
        assert total == plain_count(kind, case)
        expected = total if products or kind == "multiply" else 0
        assert case.operator.multiply_accumulates(shapes_of(case), case.parameters) == expected


@pytest.mark.parametrize("kind", sorted(OPERATORS))
def test_what_the_model_has_too_is_learned_and_always_there(kind: str):
    operator = OPERATORS[kind]
    assert set(operator.model_roles()) <= set(operator.parameter_roles)
    assert set(operator.model_roles()) <= set(operator.learned_roles)
