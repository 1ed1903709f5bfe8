"""The text of the sources: names, comments, types, what is refused."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from benchmarks.random_program import merged, random_program
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip.engines.c_engine import CEngine
from photomask.chip.formats import Interval, IntFormat
from photomask.chip.forms.c import generate_c
from photomask.chip.forms.c.text import c_type, identifiers, literal
from photomask.chip.operators import Clamp, Reshape, Slice
from photomask.chip.program import NumpyEngine
from photomask.errors import FormError, UsageError

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
INT8 = IntFormat(bits=8, signed=True)
HOSTILE = (
    "a */ int main(void) { /*", "int", "int", "memcpy", "arena", "constants", "main", "x\ny",
    "step_0", "é", "", "0", 'quote"', "??/", "back\\", "%n", "INT32_MAX", "NULL", "network_run",
    "y", "x", "columns",
)  # fmt: skip


@pytest.mark.parametrize("weights", ["arrays", "binary"])
def test_the_network_has_no_float_and_allocates_nothing(weights):
    program = merged([random_program(seed) for seed in range(40)])
    files = generate_c(program, weights=weights).files
    text = re.sub(r"/\*.*?\*/", "", files["network.c"].decode("ascii"), flags=re.DOTALL)
    assert not re.search(r"\b(float|double|malloc|calloc|free|printf)\b", text)
    assert set(re.findall(r"#include (\S+)", text)) == {'"network.h"', "<limits.h>", "<string.h>"}


def test_the_same_program_gives_the_same_bytes():
    first, second = (generate_c(small_program()[0], weights="binary").files for _ in range(2))
    assert first == second
    assert first != generate_c(small_program()[0]).files


def test_every_step_is_described():
    program = small_program()[0]
    text = generate_c(program).files["network.c"].decode("ascii")
    for step in program.steps:
        assert f"/* Step {step.name}: {step.operator.kind}.\n * From {step.node}" in text


@pytest.mark.parametrize("name", ["", "Network", "1st", "int", "a b", "a" * 41, "x;y", "main"])
def test_a_name_that_is_no_identifier_is_refused(name: str):
    with pytest.raises(UsageError, match="cannot be the name"):
        generate_c(small_program()[0], name=name)


def test_weights_are_arrays_or_binary():
    with pytest.raises(UsageError, match="'arrays' or 'binary', not 'file'"):
        generate_c(small_program()[0], weights="file")  # type: ignore[arg-type]


def test_identifiers_are_different_and_legal():
    found = identifiers(["a.b", "a_b", "a b", "int", "1", "", "é"])
    assert len(set(found)) == 7
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in found)


def test_types_and_literals_hold_the_ends_of_every_width():
    assert c_type(Interval(0, 255)) == "uint8_t"
    assert c_type(Interval(-1, 255)) == "int16_t"
    assert c_type(Interval(-(1 << 63), 0)) == "int64_t"
    assert literal(-(1 << 31)) == "INT32_MIN"
    assert literal(-(1 << 63), "int64_t") == "INT64_MIN"
    assert literal(-(1 << 31), "int64_t") == "(-INT64_C(2147483648))"


@needs_compiler
def test_names_that_mean_something_to_c_do_no_harm(tmp_path: Path):
    make = ProgramBuilder()
    outputs = []
    for index, name in enumerate(HOSTILE):
        x = make.input(f"in {index}" if name in make.edges else name, (1, 3))
        first = make.step(f"{name}.{index}", Clamp(low=-5, high=5), [x], format=INT8)
        outputs.append(make.step(f"{name}-{index}", Reshape(shape=(3, 1)), [first], format=INT8))
    for name in ("step_main", "holds_int8", "products_1", "round_x", "edge_x", "network"):
        outputs.append(make.step(name, Clamp(low=0, high=9), [make.inputs[0]], format=INT8))
    program, codes = make.build(*outputs, make.inputs[0]), make.codes(2)
    found = CEngine(program, compiler="cc -Wall -Wextra -Werror -Wconversion").run(codes)
    for name, expected in NumpyEngine(program).run(codes).items():
        assert np.array_equal(found[name], expected)
    for path, content in generate_c(program).files.items():
        (tmp_path / path).write_bytes(content)
    subprocess.run(["make", "-s", "CFLAGS=-O0"], cwd=tmp_path, check=True)


@needs_compiler
def test_names_that_are_made_from_others_stay_apart():
    """A step may be called like another step's helper, constant or working memory."""
    make = ProgramBuilder()
    x = make.input("x", (1, 2, 4, 4))
    outputs = [make.requantize("a", make.convolution("conv", x, 3), INT8)]
    for name in ("conv_columns", "conv_weight", "a_of", ".step_conv", "step_conv columns"):
        outputs.append(make.step(name, Clamp(low=-9, high=9), [x], format=INT8))
    outputs.append(make.requantize("conv_columns_2", outputs[-1], INT8, shift=9))
    program, codes = make.build(*outputs), make.codes(2)
    found = CEngine(program, compiler="cc -O0 -Wall -Wextra -Werror -Wconversion").run(codes)
    for name, expected in NumpyEngine(program).run(codes).items():
        assert np.array_equal(found[name], expected)


def test_edges_that_c_cannot_index_are_refused_with_all_their_steps():
    make = ProgramBuilder()
    x = make.input("x", (1, 1 << 16, 1 << 15))
    y = make.step("y", Clamp(low=0, high=9), [x], format=INT8)
    small = make.step("small", Slice(axis=1, start=0, stop=2, step=1), [y], format=INT8)
    z = make.step("z", Clamp(low=0, high=5), [small], format=INT8)
    with pytest.raises(FormError, match="C cannot express 2 of the program's steps") as error:
        generate_c(make.build(z))
    assert "step 'y' (clamp, " in str(error.value)
    assert "edge 'x' of shape [1, 65536, 32768] has more elements than an int" in str(error.value)
    assert "step 'small' (slice, " in str(error.value)
    assert "step 'z'" not in str(error.value)


def test_an_input_that_no_step_reads_is_counted_as_well():
    make = ProgramBuilder()
    make.input("unread", (1, 1 << 16, 1 << 15))
    y = make.step("y", Clamp(low=0, high=9), [make.input("x", (1, 2))], format=INT8)
    with pytest.raises(FormError, match=r"edge 'unread' of shape .* has more elements"):
        generate_c(make.build(y))
