"""The cycle formula; that the RTL counts the same is part of every simulation."""

import itertools

import pytest
from tests.chip.forms.rtl.rtl_programs import machine
from tests.chip.programs import ProgramBuilder

from photomask.chip.forms.rtl.cycles import descriptor_cycles, model_cycles
from photomask.chip.forms.rtl.descriptors import Descriptor, Operation
from photomask.chip.operators import Add, Matmul


@pytest.mark.parametrize(
    ("rows", "columns", "channels", "outputs", "kernel", "size"),
    list(itertools.product((4, 16), (4, 8), (3, 9), (1, 20), (1, 3), (5, 12)))[::3],
)
def test_a_convolution_takes_what_the_closed_form_says(
    rows: int, columns: int, channels: int, outputs: int, kernel: int, size: int
):
    make = ProgramBuilder()
    x = make.input("x", (1, channels, size, size))
    program = make.build(make.convolution("c", x, outputs, kernel=kernel, stride=2))
    positions = program.edges["c"].shape[2] * program.edges["c"].shape[3]
    tiles = -(-outputs // columns) * -(-channels // rows) * kernel**2
    expected = tiles * (positions + 2 * rows + columns + 6)
    assert model_cycles(program, machine(rows, columns)) == {"c": expected}


def test_an_addition_reads_each_input_once():
    make = ProgramBuilder()
    x = make.input("x", (1, 16, 5, 5))
    program = make.build(make.step("a", Add(coefficients=(2, 3), bias=1), [x, x]))
    assert model_cycles(program, machine(8, 8)) == {"a": 2 * (2 * 25 + 11)}


@pytest.mark.parametrize("zero_point", [0, 3])
def test_a_product_of_activations_loads_each_tile_and_corrects_zero_points(zero_point: int):
    make = ProgramBuilder()
    a, b = make.input("a", (1, 2, 9, 20)), make.input("b", (1, 2, 20, 11))
    program = make.build(make.step("p", Matmul(zero_points=(7, zero_point), terms=20), [a, b]))
    tiles, streams = 2 * 2 * 3, 1 + bool(zero_point)
    expected = tiles * (8 + 4 + streams * (9 + 8 + 8 + 6) + (streams - 1) * 8)
    assert model_cycles(program, machine(8, 8)) == {"p": expected}


def test_rows_take_their_walks_and_their_division():
    rows = Descriptor(Operation.SOFTMAX, output_width=10, kernel_width=17, reciprocal_bits=40)
    assert descriptor_cycles(rows, machine(8, 4)) == 4 + 10 * (3 * (2 * 3 + 17 + 4) + 41)
    norm = Descriptor(Operation.NORMALIZE, output_width=10, kernel_width=17)
    assert descriptor_cycles(norm, machine(8, 4)) == 4 + 10 * (2 * (2 * 3 + 17 + 4) + 73)
