"""ONNX Runtime gives the oracle's integers on every edge, and its failures are named."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from benchmarks.random_program import random_codes
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chip.programs import ProgramBuilder, small_builder, small_program
from tests.chip.strategies import random_programs

from photomask.chip.engines import OnnxEngine, onnx_engine
from photomask.chip.formats import IntFormat
from photomask.chip.operators import Add
from photomask.chip.program import IntegerProgram, NumpyEngine
from photomask.chip.target import PRESETS
from photomask.errors import DataError, EngineError, MissingDependencyError, UsageError

pytest.importorskip("onnxruntime")


def assert_exact(program: IntegerProgram, codes: dict[str, np.ndarray], threads: int = 1) -> None:
    engine = OnnxEngine(program, threads)
    found = dict(engine.edges(codes))
    assert list(found) == list(program.edges)
    for name, expected in NumpyEngine(program).edges(codes):
        assert found[name].dtype == np.int64
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
    outputs = engine.run(codes)
    assert list(outputs) == list(program.outputs)
    assert all(np.array_equal(outputs[name], found[name]) for name in outputs)


@settings(max_examples=60)
@given(random_programs(), st.integers(1, 4))
def test_random_programs_are_exact_on_every_edge(program: IntegerProgram, batch: int):
    assert_exact(program, random_codes(program, batch))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("target", ["asic", "onnxruntime", "tflite"])
def test_every_rounding_and_number_of_threads_is_exact(target: str, threads: int):
    make, output = small_builder(PRESETS[target])
    assert_exact(make.build(output), make.codes(7), threads)


def test_a_converted_network_is_exact(small_program: IntegerProgram, small_images: Any):
    name = small_program.inputs[0]
    assert_exact(small_program, {name: small_program.quantize_input(small_images).numpy()})


def test_outputs_may_be_inputs_or_read_by_later_steps():
    make, output = small_builder()
    assert_exact(make.build("layer1.conv:requantize", output, "x"), make.codes(2))


def test_names_may_be_those_inside_functions_or_of_other_values():
    make = ProgramBuilder()
    x = make.input("product", (1, 3, 6, 6))
    y = make.convolution("y", x, 4)
    half = make.requantize("half", y, IntFormat(bits=8, signed=True))
    taken = make.convolution("y/products", half, 4)
    low = make.requantize("half/x_zero_point", taken, IntFormat(bits=4, signed=False))
    z = make.step("batch", Add(coefficients=(3, -1), bias=5), [low, half], output="y/products_2")
    made = make.requantize("sign_bit ü", z, IntFormat(bits=8, signed=False), shift=16)
    assert_exact(make.build(made, z, taken), make.codes(3))


def test_one_engine_takes_batches_of_any_size():
    make, output = small_builder()
    program = make.build(output)
    engine = OnnxEngine(program)
    for batch in (1, 5, 2):
        codes = make.codes(batch)
        expected = NumpyEngine(program).run(codes)[output]
        assert np.array_equal(engine.run(codes)[output], expected)


@pytest.mark.parametrize("fault", ["missing", "int32", "shape", "range"])
def test_wrong_inputs_are_refused(fault: str):
    program, x = small_program()
    wrong = {
        "missing": {},
        "int32": {"x": x.astype(np.int32)},
        "shape": {"x": x[:, :, :5]},
        "range": {"x": np.full_like(x, 128)},
    }[fault]
    engine = OnnxEngine(program)
    with pytest.raises(DataError):
        engine.run(wrong)
    with pytest.raises(DataError):
        list(engine.edges(wrong))


def test_batches_that_differ_are_refused():
    make = ProgramBuilder()
    a, b = make.input("a", (1, 3)), make.input("b", (1, 3))
    program = make.build(make.step("y", Add(coefficients=(1, 1), bias=0), [a, b]))
    codes = {"a": np.zeros((2, 3), dtype=np.int64), "b": np.zeros((1, 3), dtype=np.int64)}
    with pytest.raises(DataError, match="batches of different sizes"):
        OnnxEngine(program).run(codes)


def test_no_thread_is_refused():
    with pytest.raises(UsageError, match="threads must be at least 1"):
        OnnxEngine(small_program()[0], threads=0)


def test_without_onnxruntime_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"onnxruntime.*photomask\[onnx\]"):
        OnnxEngine(small_program()[0])


def test_a_model_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx_engine, "LARGEST_MODEL", 100)
    with pytest.raises(EngineError, match="at most 100"):
        OnnxEngine(small_program()[0])


class _Refusing(ModuleType):
    """Stands for a runtime that reads no model, or runs none."""

    def __init__(self, runtime: Any, fails_at: str):
        super().__init__("onnxruntime")
        self.SessionOptions = runtime.SessionOptions

        class Session(runtime.InferenceSession):
            def __init__(self, *arguments: Any, **options: Any):
                if fails_at == "load":
                    raise RuntimeError("no kernel for ConvInteger")
                super().__init__(*arguments, **options)

            def run(self, *arguments: Any) -> list[np.ndarray]:
                raise RuntimeError("no memory for ConvInteger")

        self.InferenceSession = Session


@pytest.mark.parametrize(("fails_at", "message"), [("load", "refuses"), ("run", "cannot run")])
def test_what_the_runtime_refuses_is_an_engine_error(
    fails_at: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    import onnxruntime

    monkeypatch.setitem(sys.modules, "onnxruntime", _Refusing(onnxruntime, fails_at))
    program, x = small_program()
    with pytest.raises(EngineError, match=f"ONNX Runtime {message}.*ConvInteger"):
        OnnxEngine(program).run({"x": x})
