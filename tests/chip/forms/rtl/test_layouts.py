"""Lanes lie along the axis that a step computes along; what cannot agree is copied."""

import numpy as np
from hypothesis import given
from tests.chip.programs import ProgramBuilder
from tests.chip.strategies import random_programs

from photomask.chip.formats import IntFormat
from photomask.chip.forms.rtl.layouts import channel_axes, copies
from photomask.chip.forms.rtl.memory_map import place_edges
from photomask.chip.operators import Clamp, Matmul, Permute, Reshape, Softmax

INT8 = IntFormat(bits=8, signed=True)


def patches() -> ProgramBuilder:
    """A convolution, and a product that reads its positions as rows."""
    make = ProgramBuilder()
    x = make.input("x", (1, 3, 4, 5))
    make.requantize("maps", make.convolution("sums", x, 6), INT8)
    make.step("flat", Reshape(shape=(6, 20)), ["maps"], format=INT8)
    make.step("rows", Permute(order=(0, 2, 1)), ["flat"], format=INT8)
    make.step("clamped", Clamp(low=-9, high=9), ["rows"], format=INT8)
    make.step("product", Matmul(zero_points=(0, 0), terms=6), ["clamped", "flat"])
    return make


def test_maps_keep_their_channels_and_rows_their_last_axis():
    axes = channel_axes(patches().build("product"))
    assert (axes["x"], axes["sums"], axes["maps"]) == (1, 1, 1)
    assert (axes["rows"], axes["clamped"], axes["product"]) == (2, 2, 2)


def test_a_product_wants_both_factors_as_rows():
    program = patches().build("product")
    assert channel_axes(program)["flat"] == 2
    assert copies(program, channel_axes(program)) == []


def test_what_a_step_wants_otherwise_is_copied():
    make = patches()
    make.step("turned", Permute(order=(0, 1, 3, 2)), ["maps"], format=INT8)
    make.step("squares", Matmul(zero_points=(0, 0), terms=5), ["sums", "turned"])
    program = make.build("squares", "product")
    (copy,) = copies(program, channel_axes(program))
    assert (copy.step, copy.number, copy.axis, copy.in_accumulators) == ("squares", 0, 3, False)


def test_a_masked_softmax_works_on_a_copy_that_holds_hidden_scores():
    make = ProgramBuilder()
    x = make.input("x", (1, 2, 3))
    tensors = {"table": np.array([9, 3]), "mask": np.array([1, 0, 1])}
    formats = {"table": INT8, "mask": IntFormat(bits=1, signed=False)}
    make.step("y", Softmax(fraction_bits=4, reciprocal_bits=9), [x], tensors, formats)
    program = make.build("y")
    (copy,) = copies(program, channel_axes(program))
    assert (copy.number, copy.axis, copy.in_accumulators) == (0, 2, True)


@given(random_programs())
def test_every_step_finds_its_inputs_as_it_wants_them(program):
    axes = channel_axes(program)
    copied = {(copy.step, copy.number): copy.axis for copy in copies(program, axes)}
    for step in program.steps:
        for number, name in enumerate(step.inputs):
            shape = program.edges[name].shape
            wanted = step.operator.input_lane_axis(number, shape)
            assert 0 <= axes[name] < len(shape)
            assert wanted is None or copied.get((step.name, number), axes[name]) == wanted


@given(random_programs())
def test_sums_lie_in_the_accumulators_however_narrow_their_format_is(program):
    places = place_edges(program, 16, activation_bits=64, accumulator_bits=64).edges
    for step in program.steps:
        memory = "accumulators" if step.operator.accumulates else "activations"
        assert places[step.output].memory == memory
