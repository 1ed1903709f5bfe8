from benchmarks.random_program import random_program
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.forms.c import generate_c
from photomask.chip.forms.c.memory_plan import ALIGNMENT, Buffer, MemoryPlan, plan_memory

BUFFERS = st.lists(
    st.tuples(st.integers(1, 500), st.integers(0, 20), st.integers(0, 6)), max_size=30
).map(
    lambda rows: [
        Buffer(f"b{index}", size, first, first + length)
        for index, (size, first, length) in enumerate(rows)
    ]
)


def check(plan: MemoryPlan) -> None:
    """No two buffers that live at one moment share a byte, and all lie in the arena."""
    for index, buffer in enumerate(plan.buffers):
        start = plan.offsets[buffer.name]
        assert start % ALIGNMENT == 0
        assert start >= 0
        assert start + buffer.bytes <= plan.bytes
        for other in plan.buffers[:index]:
            if buffer.meets(other):
                apart = plan.offsets[other.name]
                assert start + buffer.bytes <= apart or apart + other.bytes <= start
    assert plan.needed <= plan.bytes


@settings(max_examples=200, deadline=None, derandomize=True)
@given(buffers=BUFFERS)
def test_buffers_that_meet_share_no_byte(buffers: list[Buffer]):
    plan = plan_memory(buffers)
    assert plan.buffers == tuple(buffers)
    check(plan)


def test_buffers_that_never_meet_share_all_bytes():
    plan = plan_memory([Buffer("a", 64, 0, 1), Buffer("b", 64, 2, 3), Buffer("c", 32, 4, 4)])
    assert plan.bytes == plan.needed == 64
    assert set(plan.offsets.values()) == {0}


def test_a_buffer_takes_the_smallest_gap_that_holds_it():
    always = [Buffer(name, size, 0, 9) for name, size in (("a", 960), ("b", 640), ("c", 480))]
    early = [Buffer("wide", 320, 0, 4), Buffer("narrow", 160, 0, 4)]
    plan = plan_memory([*always, *early, Buffer("late", 160, 5, 9)])
    assert plan.bytes == plan.needed == 960 + 640 + 480 + 320 + 160
    assert plan.offsets["late"] in (plan.offsets["wide"], plan.offsets["narrow"])


def test_the_plans_of_programs_hold():
    for seed in range(60):
        program = random_program(seed)
        check(generate_c(program).plan)
        check(generate_c(program, keep_edges=True).plan)


def test_sums_that_are_requantized_at_once_take_no_arena():
    for seed in range(40):
        program = random_program(seed)
        kept = {buffer.name for buffer in generate_c(program, keep_edges=True).plan.buffers}
        assert {buffer.name for buffer in generate_c(program).plan.buffers} <= kept
