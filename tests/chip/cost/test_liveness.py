import pytest
from benchmarks.random_program.programs import random_program

from photomask.chip.cost.fusion import edge_bytes
from photomask.chip.cost.liveness import live_memory
from photomask.chip.operators import Family
from photomask.chip.program import IntegerProgram


def alive_at(program: IntegerProgram, number: int) -> set[str]:
    """Returns the edges that exist while a step runs and that it or a later one still needs."""
    made = {*program.inputs, *(step.output for step in program.steps[: number + 1])}
    needed = {name for step in program.steps[number:] for name in step.inputs}
    needed |= {*program.outputs, program.steps[number].output}
    if number == 0:
        needed |= {*program.inputs}
    constant = {s.output for s in program.steps if s.operator.family is Family.CONSTANT}
    return (made & needed) - constant


@pytest.mark.parametrize("seed", range(30))
def test_the_memory_of_a_step_is_that_of_all_edges_that_are_made_and_still_needed(seed: int):
    program = random_program(seed)
    found = live_memory(program)
    assert [live.step for live in found] == [step.name for step in program.steps]
    for number, live in enumerate(found):
        alive = alive_at(program, number)
        sums = {name for name in alive if program.edges[name].role == "accumulator"}
        assert live.accumulator_bytes == sum(edge_bytes(program, name) for name in sums)
        assert live.activation_bytes == sum(edge_bytes(program, name) for name in alive - sums)


def test_a_residual_branch_keeps_its_edge_alive(small_program: IntegerProgram):
    add = next(s for s in small_program.steps if s.operator.kind == "add")
    live = {found.step: found for found in live_memory(small_program)}[add.name]
    assert live.activation_bytes >= sum(edge_bytes(small_program, name) for name in add.inputs)
