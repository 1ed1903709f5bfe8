"""The cycle formula; that the RTL counts the same is part of every simulation."""

import itertools

import pytest
from tests.chip.hardware.rtl_programs import machine
from tests.chip.programs import ProgramBuilder

from photomask.chip.hardware.cycles import model_cycles
from photomask.chip.operators import Add


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
