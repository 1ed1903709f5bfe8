"""Each rounding mode at its ties and thresholds, in 32 and in 64 bits."""

import shutil

import numpy as np
import pytest
from tests.chip.programs import ProgramBuilder

from photomask.chip.arithmetic import round_shift
from photomask.chip.engines import CEngine
from photomask.chip.formats import Interval, IntFormat
from photomask.chip.forms.c import generate_c
from photomask.chip.operators import Requantize
from photomask.chip.program import Edge, IntegerProgram, NumpyEngine
from photomask.chip.target import Rounding

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def rescaling(
    rounding: Rounding, values: np.ndarray, multiplier: list[int], shift: list[int], bits: int = 41
) -> tuple[IntegerProgram, dict[str, np.ndarray]]:
    """A program that rescales `values` to `bits` by every multiplier and shift, and its codes."""
    make = ProgramBuilder()
    interval = Interval(int(values.min()), int(values.max()))
    shape = (1, len(shift), len(values))
    make.inputs.append("x")
    make.edges["x"] = Edge(
        name="x", shape=shape, format=IntFormat.holding(interval), low=interval.low,
        high=interval.high, scale=(1.0,), zero_point=0, role="input",
    )  # fmt: skip
    ends = (1 << (bits - 1)) - 1
    make.step(
        "y",
        Requantize(rounding=rounding, offset=0, zero_point=0, low=-ends, high=ends),
        ["x"],
        {
            "multiplier": np.array(multiplier).reshape(-1, 1),
            "shift": np.array(shift).reshape(-1, 1),
        },
        {"multiplier": IntFormat(bits=31, signed=False), "shift": IntFormat(bits=6, signed=False)},
        format=IntFormat(bits=bits, signed=True),
    )
    return make.build("y"), {"x": np.broadcast_to(values, shape).copy()}


def check(
    rounding: Rounding, values: np.ndarray, multiplier: list[int], shift: list[int], width: int
) -> None:
    program, codes = rescaling(rounding, values, multiplier, shift, 20 if width == 32 else 41)
    source = generate_c(program).files["network.c"].decode("ascii")
    assert f"floor_shift_{width}" in source
    found = CEngine(program, compiler="cc -O2 -Wall -Wextra -Werror -Wconversion").run(codes)["y"]
    assert np.array_equal(found, NumpyEngine(program).run(codes)["y"])
    for channel, (m, s) in enumerate(zip(multiplier, shift, strict=True)):
        expected = [round_shift(int(value) * m, s, rounding) for value in values]
        assert found[0, channel].tolist() == expected


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("width", [32, 64])
def test_ties_of_both_signs(rounding: Rounding, width: int):
    values = np.arange(-70, 71)
    if width == 64:
        values = np.append(values, [-(1 << 33), 1 << 33])
    multiplier = [1, 1, 1, 1, 3, 5, 7, 0, 8, 1]
    shift = [0, 1, 2, 3, 2, 4, 1, 5, 4, 6]
    check(rounding, values, multiplier, shift, width)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_ties_where_all_channels_have_one_shift(rounding: Rounding, shift: int):
    check(rounding, np.arange(-40, 41), [1, 3, 1], [shift] * 3, 32)


@pytest.mark.parametrize("rounding", Rounding)
def test_shifts_around_the_first_rounding_of_double(rounding: Rounding):
    shifts = [30, 31, 32, 33, 34, 36]
    around = [
        sign * (k << s) + (1 << (s - 1)) + nudge * (1 << 30) + small
        for s in shifts
        for sign in (-1, 1)
        for k in (0, 1, 2, 5)
        for nudge in (-1, 0, 1)
        for small in (-1, 0, 1)
    ]
    values = np.unique(np.array([*around, *(-value for value in around)]))
    check(rounding, values, [1, 1, 1, 1, 3, 1], shifts, 64)


@pytest.mark.parametrize("rounding", Rounding)
def test_the_largest_products(rounding: Rounding):
    largest = (1 << 31) - 1
    values = np.array([-largest - 1, -largest, -1, 0, 1, largest])
    check(rounding, values, [largest, largest, largest - 1, 1], [62, 31, 40, 62], 64)


def test_channels_share_a_shift_only_where_that_is_exact():
    def text(rounding: Rounding, multiplier: list[int], shift: list[int]) -> str:
        program = rescaling(rounding, np.arange(-9, 9), multiplier, shift)[0]
        return generate_c(program).files["network.c"].decode("ascii")

    assert "step_y_of_shift" not in text(Rounding.HALF_EVEN, [3, 5], [20, 24])
    assert "48, 5," in text(Rounding.HALF_EVEN, [3, 5], [20, 24])
    assert "step_y_of_shift" in text(Rounding.DOUBLE, [3, 5], [20, 24])
    assert "step_y_of_shift" in text(Rounding.HALF_EVEN, [(1 << 31) - 1, 5], [20, 24])


@pytest.mark.parametrize("rounding", Rounding)
def test_ends_that_are_wider_than_the_product(rounding: Rounding):
    check(rounding, np.arange(-40, 41), [1, 3], [0, 2], 64)
