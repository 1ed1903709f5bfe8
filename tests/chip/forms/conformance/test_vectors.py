"""Conformance vectors tell every wrong receiver from a right one, in any format of any target."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chip.forms.memory.receivers import RIGHT, WRONG, Receiver, rescaling_program
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip.formats import IntFormat
from photomask.chip.forms.conformance.documents import ConformanceVectors, RescalingFormat
from photomask.chip.forms.conformance.examination import examine
from photomask.chip.forms.conformance.vectors import conformance_vectors
from photomask.chip.operators import Clamp, Requantize
from photomask.chip.program import NumpyEngine
from photomask.chip.target import PRESETS, Rounding, Target, ZeroPoints


@st.composite
def targets(draw: st.DrawFn) -> Target:
    """Any target whose multipliers can make a half."""
    multiplier_bits = draw(st.integers(4, 31))
    shift_min = draw(st.integers(0, 4))
    return Target(
        name="random",
        rounding=draw(st.sampled_from(Rounding)),
        multiplier_bits=multiplier_bits,
        shift_min=shift_min,
        shift_max=draw(st.integers(min(62, multiplier_bits + 4), 62)),
        per_channel_shift=draw(st.booleans()),
        power_of_two_only=draw(st.booleans()),
        accumulator_bits=draw(st.integers(20, min(48, 63 - multiplier_bits))),
        zero_points=draw(st.sampled_from(ZeroPoints)),
    )


@st.composite
def vectors_of_random_formats(draw: st.DrawFn) -> ConformanceVectors:
    """Of a program with one rescaling of any kind."""
    target = draw(targets())
    output = IntFormat(bits=draw(st.integers(2, 12)), signed=draw(st.booleans()))
    low = draw(st.integers(output.low, output.high))
    program = rescaling_program(
        target,
        accumulator=IntFormat(bits=target.accumulator_bits, signed=True),
        output=output,
        zero_point=draw(st.integers(output.low, output.high)),
        low=low,
        high=draw(st.integers(low, output.high)),
        channels=draw(st.sampled_from([1, 3])),
    )
    vectors = conformance_vectors(program)
    assert vectors is not None
    return vectors


@given(vectors_of_random_formats())
@settings(max_examples=15, deadline=None)
def test_what_is_expected_is_what_exact_fractions_say(vectors):
    assert examine(vectors, RIGHT.run(vectors)).state == "proven"


@given(targets(), st.sampled_from(["signed", "unsigned"]))
@settings(max_examples=15, deadline=None)
def test_the_oracle_computes_what_is_expected(target, sign):
    program = rescaling_program(
        target,
        accumulator=IntFormat(bits=target.accumulator_bits, signed=True),
        output=IntFormat(bits=8, signed=sign == "signed"),
    )
    vectors = conformance_vectors(program)
    assert vectors is not None
    computed = NumpyEngine(vectors.program(target)).run(vectors.inputs())
    for step in vectors.steps:
        assert np.array_equal(computed[step.step], np.array([step.expected]))


def rounds_twice(format: RescalingFormat) -> bool:
    """Whether TOSA's first rounding can change a result: a half after a shift of more than 31."""
    return format.shift_max > 31 and format.accumulator.bits + format.multiplier_bits >= 34


def same_by_definition(receiver: Receiver, format: RescalingFormat) -> bool:
    """Whether a receiver with this name computes what is right on every number."""
    right = {
        Rounding.HALF_UP: "rounds halves up",
        Rounding.HALF_EVEN: "rounds halves to even",
        Rounding.HALF_AWAY: "rounds halves away from zero",
        Rounding.TRUNCATE: "drops the low bits (rounds down)",
        Rounding.DOUBLE: "rounds twice, as TOSA does",
    }[format.rounding]
    if receiver.words == right:
        return True
    alike = {"rounds halves up", "rounds twice, as TOSA does"}
    if {receiver.words, right} == alike and not rounds_twice(format):
        return True
    if receiver.without_zero_point or receiver.zero_point_first:
        shifts_with_integers = format.rounding in (Rounding.HALF_UP, Rounding.TRUNCATE) or (
            format.rounding is Rounding.DOUBLE and not rounds_twice(format)
        )
        return not format.zero_point or (receiver.zero_point_first and shifts_with_integers)
    largest = (1 << (format.accumulator.bits - 1)) * ((1 << format.multiplier_bits) - 1)
    return receiver.words == "keeps only 32 bits of the product" and largest <= 1 << 31


@given(vectors_of_random_formats())
@settings(max_examples=20, deadline=None)
def test_every_wrong_receiver_is_caught_and_named_on_every_target(vectors):
    """Whatever the program's own format can tell: its outputs may all be clamped to one number."""
    general = vectors.formats[-1]
    for receiver in WRONG:
        if same_by_definition(receiver, general):
            continue
        found = receiver.run(vectors)
        result = examine(vectors, found)
        assert result.state == "wrong", receiver.words
        assert receiver.words in result.faults, (receiver.words, result.faults)


def random_numbers(
    format: RescalingFormat, scale: tuple[int, int], randomness: random.Random
) -> list[int]:
    """Accumulators near to where a receiver decides: ties, whole results, both ends."""
    multiplier, shift = scale
    found = []
    for _ in range(40):
        near = randomness.choice([0, format.low - format.zero_point, format.high])
        floor = near + randomness.randint(-4, 4)
        halves = 2 * floor + randomness.randint(0, 1)
        x = (halves << shift) // max(1, 2 * multiplier) + randomness.randint(-1, 1)
        if format.accumulator.low <= x - format.offset <= format.accumulator.high:
            found.append(x - format.offset)
    return found


@given(vectors_of_random_formats(), st.integers(0, 1 << 30))
@settings(max_examples=20, deadline=None)
def test_what_any_number_of_a_format_shows_its_vectors_show(vectors, seed):
    """No format has a fault that other numbers would show and its own vectors hide."""
    format, randomness = vectors.formats[0], random.Random(seed)
    steps = [step for step in vectors.steps if step.format == format.name]
    scales = [s for step in steps for s in zip(step.multiplier, step.shift, strict=True)]
    for receiver in WRONG:
        shown = any(
            receiver.result(format, x, *scale) != format.result(x, *scale)
            for scale in scales
            for x in random_numbers(format, scale, randomness)
        )
        found = receiver.run(vectors)
        caught = any(
            not np.array_equal(found[step.step].values, np.array(step.expected)) for step in steps
        )
        assert caught or not shown, receiver.words


@pytest.mark.parametrize("target", PRESETS.values(), ids=lambda target: target.name)
def test_vectors_stay_within_the_target(target):
    program = small_program(target)[0]
    vectors = conformance_vectors(program)
    assert vectors is not None
    for step in vectors.steps:
        format = vectors.format(step.format)
        assert all(target.shift_min <= shift <= target.shift_max for shift in step.shift)
        assert max(step.multiplier) < 1 << target.multiplier_bits
        assert target.per_channel_shift or len(set(step.shift)) == 1
        assert format.per_channel or len(step.multiplier) == 1
    used = [step for format in vectors.formats for step in format.used_by]
    rescaling = [step.name for step in program.steps if step.operator.kind == "requantize"]
    assert sorted(used) == sorted(rescaling)


def test_a_target_that_shifts_alone_gets_multipliers_of_one():
    target = PRESETS["max78000"]
    program = rescaling_program(
        target,
        accumulator=IntFormat(bits=32, signed=True),
        output=IntFormat(bits=8, signed=True),
    )
    vectors = conformance_vectors(program)
    assert vectors is not None
    assert {m for step in vectors.steps for m in step.multiplier} == {1}


def test_narrow_accumulators_of_a_machine_bound_the_vectors():
    vectors = conformance_vectors(small_program()[0], accumulator_bits=20)
    assert vectors is not None
    assert max(x for step in vectors.steps for row in step.accumulator for x in row) < 1 << 19


def test_ends_beyond_the_output_that_a_program_never_reaches_are_those_of_the_output():
    make = ProgramBuilder()
    x = make.input("x", (1, 4), bits=2, signed=False)
    operator = Requantize(rounding=Rounding.HALF_UP, offset=0, zero_point=0, low=-9, high=99)
    one = {"multiplier": np.array([1]), "shift": np.array([1])}
    formats = {role: IntFormat(bits=6, signed=False) for role in one}
    narrow = IntFormat(bits=2, signed=False)
    program = make.build(make.step("y", operator, [x], one, formats, format=narrow))
    vectors = conformance_vectors(program)
    assert vectors is not None
    assert (vectors.formats[0].low, vectors.formats[0].high) == (0, 3)
    assert examine(vectors, RIGHT.run(vectors)).state == "proven"
    vectors.program(program.target)


def test_a_program_that_rescales_nothing_has_no_vectors():
    make = ProgramBuilder()
    x = make.input("x", (1, 4))
    clamp = Clamp(low=0, high=9)
    y = make.step("y", clamp, [x], format=IntFormat(bits=8, signed=True))
    assert conformance_vectors(make.build(y)) is None


def test_results_that_no_known_fault_explains_are_said_to_be_so():
    vectors = conformance_vectors(small_program()[0])
    assert vectors is not None
    found = RIGHT.run(vectors)
    step = vectors.steps[0]
    found[step.step].values[0, 3] ^= 2
    result = examine(vectors, found)
    assert (result.wrong, result.faults) == (1, ())
    assert "no known fault" in str(result)
    first = result.first_wrong
    assert first is not None
    assert (first.step, first.channel, first.position) == (step.step, 0, 3)
    assert first.accumulator == step.accumulator[0][3]


def test_a_fault_of_one_unit_is_named_though_the_others_are_right():
    vectors = conformance_vectors(small_program()[0])
    assert vectors is not None
    found = RIGHT.run(vectors)
    general = vectors.formats[-1].name
    wrong = Receiver("rounds halves to even", rounding=round).run(vectors)
    found[general] = wrong[general]
    result = examine(vectors, found)
    assert result.faults == ("rounds halves to even",)
    assert [one.format for one in result.formats if one.wrong] == [general]
    assert "rounds halves to even; target 'asic' rounds halves up" in str(result)


def test_vectors_that_were_not_run_prove_nothing():
    vectors = conformance_vectors(small_program()[0])
    assert vectors is not None
    found = RIGHT.run(vectors)
    assert examine(vectors, {}).state == "not checked"
    del found[vectors.steps[0].step]
    result = examine(vectors, found)
    assert result.state == "incomplete"
    assert "NOT PROVEN" in str(result)
