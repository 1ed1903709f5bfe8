"""What is compiled computes the oracle's integers; what cannot be compiled says so."""

import gc
import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmarks.random_program import merged, random_codes, random_program
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip.engines import CEngine
from photomask.chip.formats import IntFormat
from photomask.chip.operators import Clamp, Constant
from photomask.chip.program import NumpyEngine
from photomask.errors import DataError, EngineError, UsageError

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
INT8 = IntFormat(bits=8, signed=True)


def assert_exact(engine: CEngine, codes: dict[str, np.ndarray]) -> None:
    oracle = dict(NumpyEngine(engine.program).edges(codes))
    outputs, edges = engine.run(codes), dict(engine.edges(codes))
    assert list(outputs) == list(dict.fromkeys(engine.program.outputs))
    assert list(edges) == list(oracle)
    for found in (outputs, edges):
        for name, value in found.items():
            assert value.dtype == np.int64
            assert np.array_equal(value, oracle[name]), name


@needs_compiler
@pytest.mark.parametrize(
    ("seeds", "optimization"), [(range(32), "-O0"), (range(32, 38), "-O3 -march=native")]
)
def test_random_programs_compute_the_integers_of_the_oracle(seeds: range, optimization: str):
    program = merged([random_program(seed) for seed in seeds])
    engine = CEngine(program, compiler=f"cc -Wall -Wextra -Werror -Wconversion {optimization}")
    assert_exact(engine, random_codes(program, 5))


@needs_compiler
@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_computes_the_integers_of_the_oracle(batch: int):
    program, codes = small_program(batch=batch)
    assert_exact(CEngine(program), {"x": codes})


@needs_compiler
def test_inputs_and_constants_may_be_outputs():
    make = ProgramBuilder()
    x = make.input("x", (1, 2, 3), bits=4, signed=False)
    value = make.step(
        "c", Constant(), [], {"value": np.arange(6).reshape(1, 6)}, {"value": INT8}, format=INT8
    )
    y = make.step("y", Clamp(low=2, high=5), [x], format=INT8)
    program = make.build(x, value, y)
    engine = CEngine(program)
    assert_exact(engine, make.codes(3))
    assert engine.run(make.codes(3))["c"].shape == (1, 6)


@needs_compiler
def test_codes_outside_their_edge_are_refused():
    program, codes = small_program()
    engine = CEngine(program)
    with pytest.raises(DataError, match="outside -128 to 127"):
        engine.run({"x": codes + 1000})
    with pytest.raises(DataError, match="takes"):
        engine.run({})


@needs_compiler
def test_the_compiled_files_go_with_the_engine():
    engine = CEngine(small_program()[0])
    folder = engine._folder
    assert any(folder.rglob("*.so"))
    del engine
    gc.collect()
    assert not folder.exists()


def test_a_missing_compiler_is_named_with_what_installs_one():
    with pytest.raises(EngineError, match=r"no C compiler 'no-such-cc'.*apt install gcc"):
        CEngine(small_program()[0], compiler="no-such-cc -O2")


def test_a_compiler_that_is_no_command_line_is_refused():
    with pytest.raises(UsageError, match="not a valid command line: No closing quotation"):
        CEngine(small_program()[0], compiler='cc "-O2')


def test_a_compiler_that_fails_is_quoted(tmp_path: Path):
    script = tmp_path / "cc"
    script.write_text("#!/bin/sh\necho 'network.c:1: error: no luck' >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(EngineError, match=r"status 3:\nnetwork.c:1: error: no luck"):
        CEngine(small_program()[0], compiler=str(script))


def test_a_library_that_does_not_load_is_an_error(tmp_path: Path):
    script = tmp_path / "cc"
    script.write_text("#!/bin/sh\nfor last; do :; done\necho nothing > $last\n")
    script.chmod(0o755)
    with pytest.raises(EngineError, match="cannot load"):
        CEngine(small_program()[0], compiler=str(script))
