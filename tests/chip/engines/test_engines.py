"""Both engines give the same integers on every edge, and refuse what they cannot run."""

import numpy as np
import pytest
import torch
from tests.chip.programs import ProgramBuilder, small_builder, small_program

from photomask.chip.engines import TorchEngine
from photomask.chip.formats import IntFormat
from photomask.chip.operators import Add, Clamp
from photomask.chip.program import IntegerProgram, NumpyEngine
from photomask.chip.target import PRESETS
from photomask.errors import DataError


def as_torch(codes: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in codes.items()}


def assert_engines_agree(program: IntegerProgram, codes: dict[str, np.ndarray]) -> None:
    oracle = dict(NumpyEngine(program).edges(codes))
    engine = TorchEngine(program)
    fast = dict(engine.edges(as_torch(codes)))
    assert list(oracle) == list(fast) == list(program.edges)
    for name, expected in oracle.items():
        edge = program.edges[name]
        assert expected.dtype == np.int64
        assert fast[name].dtype == torch.int64
        assert expected.shape[1:] == edge.shape[1:]
        assert torch.equal(fast[name], torch.from_numpy(expected)), name
        assert edge.low <= expected.min()
        assert expected.max() <= edge.high
    outputs = engine.run(as_torch(codes))
    assert list(outputs) == list(NumpyEngine(program).run(codes)) == list(program.outputs)
    assert all(torch.equal(outputs[name], fast[name]) for name in outputs)


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("target", ["asic", "onnxruntime", "tflite"])
def test_engines_agree_on_every_edge(batch: int, target: str):
    make, output = small_builder(PRESETS[target])
    assert_engines_agree(make.build(output), make.codes(batch))


@pytest.mark.parametrize("extreme", ["low", "high"])
def test_engines_agree_at_the_ends_of_the_input(extreme: str):
    program, x = small_program()
    assert_engines_agree(program, {"x": np.full_like(x, getattr(program.edges["x"], extreme))})


def test_a_loaded_program_gives_the_same_integers(tmp_path):
    program, x = small_program()
    program.save(tmp_path / "program")
    loaded = IntegerProgram.load(tmp_path / "program")
    expected = NumpyEngine(program).run({"x": x})["logits"]
    assert np.array_equal(NumpyEngine(loaded).run({"x": x})["logits"], expected)


def test_wide_inputs_keep_their_last_bit():
    make = ProgramBuilder()
    x = make.input("x", (1, 3), bits=40)
    top = (1 << 39) - 1
    wide = IntFormat(bits=40, signed=True)
    y = make.step("y", Clamp(low=-top, high=top - 1), [x], format=wide)
    assert_engines_agree(make.build(y), {"x": np.array([[top, top - 2, 1 << 25 | 1]])})


def test_outputs_that_later_steps_read_are_given_too():
    make, output = small_builder()
    program = make.build("layer1.conv:requantize", output, "x")
    assert_engines_agree(program, make.codes(2))


@pytest.mark.parametrize("settings", ["medium", "autocast", "bfloat16", "inference"])
def test_the_caller_s_arithmetic_changes_nothing(settings: str):
    program, x = small_program()
    expected = torch.from_numpy(NumpyEngine(program).run({"x": x})["logits"])
    engine, onednn = TorchEngine(program), torch.backends.mkldnn
    saved = onednn.conv.fp32_precision, onednn.matmul.fp32_precision
    try:
        if settings == "medium":
            torch.set_float32_matmul_precision("medium")
        if settings == "bfloat16":
            onednn.conv.fp32_precision = onednn.matmul.fp32_precision = "bf16"
        before = onednn.conv.fp32_precision, onednn.matmul.fp32_precision
        with (
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings == "autocast"),
            torch.inference_mode(settings == "inference"),
        ):
            for name, value in engine.edges({"x": torch.from_numpy(x)}):
                assert (onednn.conv.fp32_precision, onednn.matmul.fp32_precision) == before
                if name == "logits":
                    assert torch.equal(value, expected)
            assert torch.equal(engine.run({"x": torch.from_numpy(x)})["logits"], expected)
    finally:
        torch.set_float32_matmul_precision("highest")
        onednn.conv.fp32_precision, onednn.matmul.fp32_precision = saved


def wrong(x: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    return {
        "missing": {},
        "unknown": {"x": x, "y": x},
        "int32": {"x": x.astype(np.int32)},
        "float": {"x": x.astype(np.float64)},
        "shape": {"x": x[:, :, :5]},
        "rank": {"x": x[..., None]},
        "empty": {"x": x[:0]},
        "range": {"x": np.full_like(x, 128)},
    }


@pytest.mark.parametrize("case", wrong(np.zeros((1, 2, 6, 6), dtype=np.int64)))
def test_wrong_inputs_are_refused(case: str):
    program, x = small_program()
    inputs = wrong(x)[case]
    with pytest.raises(DataError):
        NumpyEngine(program).run(inputs)
    with pytest.raises(DataError):
        TorchEngine(program).run(as_torch(inputs))


def test_a_half_precision_input_is_refused():
    program, x = small_program()
    with pytest.raises(DataError, match="int64"):
        TorchEngine(program).run({"x": torch.from_numpy(x).bfloat16()})


def test_batches_that_differ_are_refused():
    make = ProgramBuilder()
    a, b = make.input("a", (1, 3)), make.input("b", (1, 3))
    program = make.build(make.step("y", Add(coefficients=(1, 1), bias=0), [a, b]))
    codes = {"a": np.zeros((2, 3), dtype=np.int64), "b": np.zeros((1, 3), dtype=np.int64)}
    with pytest.raises(DataError, match="batches of different sizes"):
        NumpyEngine(program).run(codes)
    with pytest.raises(DataError, match="batches of different sizes"):
        TorchEngine(program).run(as_torch(codes))


def test_codes_alone_are_the_input_of_a_program_with_one():
    program, x = small_program()
    expected = NumpyEngine(program).run({"x": x})["logits"]
    for codes in (x, torch.from_numpy(x), [x], {"x": torch.from_numpy(x)}):
        assert np.array_equal(NumpyEngine(program).run(codes)["logits"], expected)
        assert np.array_equal(TorchEngine(program).run(codes)["logits"].numpy(), expected)
    for codes in ([x, x], "x", None, x.astype(np.float32)):
        with pytest.raises(DataError):
            TorchEngine(program).run(codes)
