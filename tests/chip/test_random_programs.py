"""The random programs are valid by construction; here: that they reach everything."""

import numpy as np
import pytest
from benchmarks.random_program import random_codes, random_program
from benchmarks.random_program.steps import GROWTHS

from photomask.chip import IntegerProgram
from photomask.chip.operators import OPERATORS, Requantize
from photomask.chip.target import Rounding

PROGRAMS = [random_program(seed) for seed in range(300)]
STEPS = [step for program in PROGRAMS for step in program.steps]


def test_every_operator_occurs():
    kinds = {operator.model_fields["kind"].default for operator in OPERATORS}
    assert set(GROWTHS) == kinds == {step.operator.kind for step in STEPS}


def test_every_rounding_occurs():
    found = [step.operator.rounding for step in STEPS if isinstance(step.operator, Requantize)]
    assert set(found) == set(Rounding)


def test_programs_have_one_to_twelve_steps_inputs_and_outputs_in_several_numbers():
    assert {len(program.steps) for program in PROGRAMS} == set(range(1, 13))
    assert {len(program.inputs) for program in PROGRAMS} == {1, 2, 3}
    assert {1, 2, 3} <= {len(program.outputs) for program in PROGRAMS}


def test_formats_reach_their_ends():
    edges = [edge for program in PROGRAMS for edge in program.edges.values()]
    activations = {edge.format.bits for edge in edges if edge.role != "accumulator"}
    assert {1, 2, 8, 16} <= activations <= set(range(1, 17))
    assert any(edge.interval.bits > 32 for edge in edges)
    assert any(edge.shape[0] > 1 for edge in edges), "rows of a batch"


def test_the_same_seed_gives_the_same_program_and_codes():
    again: IntegerProgram = random_program(17)
    assert again.content_hash() == PROGRAMS[17].content_hash()
    first, second = (random_codes(again, 3, seed=5) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in again.inputs)


@pytest.mark.parametrize("seed", [10121, 47005187, 47015030])
def test_rows_of_a_batch_are_joined_only_where_they_grow_alike(seed: int):
    assert random_program(seed).steps


def test_codes_hold_the_ends_of_the_interval():
    program = PROGRAMS[0]
    for name, codes in random_codes(program, 64).items():
        edge = program.edges[name]
        assert (codes.min(), codes.max()) == (edge.low, edge.high)
