"""Links say of random programs what one finds by looking at every step, and by running them."""

from benchmarks.random_program import random_codes
from hypothesis import given
from tests.chip.programs import small_program
from tests.chip.strategies import random_programs

from photomask.chip.cost.accelerator import PRESETS
from photomask.chip.cost.estimates import estimate
from photomask.chip.operators import Clamp, Lookup, Requantize
from photomask.chip.program import IntegerProgram, NumpyEngine


@given(random_programs())
def test_makers_and_readers_are_those_that_name_an_edge(program: IntegerProgram):
    links = program.links
    for name in program.edges:
        makers = [step for step in program.steps if step.output == name]
        assert [links.makers[name]] == makers if makers else name not in links.makers
        readers = [step for step in program.steps for read in step.inputs if read == name]
        assert list(links.readers[name]) == readers
        assert (name in links.last_reads) == bool(readers)
        if readers:
            assert program.steps[links.last_reads[name]] == readers[-1]
        alone = len(readers) == 1 and name not in program.outputs
        assert links.only_reader(name) == (readers[0] if alone else None)
    assert [links.positions[step.name] for step in program.steps] == [*range(len(program.steps))]
    for node in {step.node for step in program.steps}:
        assert links.of_node(node) == tuple(step for step in program.steps if step.node == node)


@given(random_programs())
def test_edges_that_grow_have_rows_for_every_sample(program: IntegerProgram):
    one, three = (
        dict(NumpyEngine(program).edges(random_codes(program, batch))) for batch in (1, 3)
    )
    grown = {name for name in one if len(three[name]) == 3 * len(one[name])}
    assert program.links.growing == grown


@given(random_programs())
def test_epilogues_follow_each_other_and_nothing_else_needs_what_is_between(program):
    for step in program.steps:
        edge = step.output
        for epilogue in program.links.epilogues(step):
            assert isinstance(epilogue.operator, Clamp | Lookup | Requantize)
            assert epilogue.inputs == (edge,)
            assert edge not in program.outputs
            assert not [s for s in program.steps if edge in s.inputs and s is not epilogue]
            edge = epilogue.output
        rescaling = program.links.rescaling(step)
        assert rescaling is None or rescaling == program.links.epilogues(step)[0]


def test_an_estimate_counts_every_step_once():
    program, _ = small_program()
    report = estimate(program, PRESETS["reference"])
    names = [name for step in report.steps for name in (step.step, *step.fused)]
    assert sorted(names) == sorted(step.name for step in program.steps)


def test_links_are_computed_once():
    program, _ = small_program()
    assert program.links is program.links
