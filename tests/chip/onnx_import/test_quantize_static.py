"""Models quantized by ONNX Runtime itself, in all its formats."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from tests.chip.onnx_import.qdq_models import QdqModel, codes_of_runtime, distances, imported, run

from photomask.chip.engines import TorchEngine
from photomask.chip.program import NumpyEngine
from photomask.chip.target import PRESETS, ZeroPoints

KIND = quantization.QuantType
ALL = PRESETS["onnxruntime"].model_copy(
    update={"zero_points": ZeroPoints.ALL, "accumulator_bits": 39}
)
"""Products of 16-bit codes need more than 32 bits."""
FORMATS: dict[str, dict[str, Any]] = {
    "int8 per channel": {"activation_type": KIND.QInt8, "per_channel": True},
    "int8 per tensor": {"activation_type": KIND.QInt8},
    "uint8": {"activation_type": KIND.QUInt8, "weight_type": KIND.QUInt8},
    "int16 activations": {"activation_type": KIND.QInt16, "per_channel": True},
    "uint16 activations": {"activation_type": KIND.QUInt16},
    "int4 weights": {"activation_type": KIND.QInt8, "weight_type": KIND.QInt4},
    "own pairs": {
        "activation_type": KIND.QUInt8,
        "extra_options": {"DedicatedQDQPair": True, "ActivationSymmetric": True},
    },
    "weights quantized in the graph": {
        "activation_type": KIND.QInt8,
        "extra_options": {"AddQDQPairToWeight": True},
    },
}


class Samples:
    """Calibration data as ONNX Runtime asks for it."""

    def __init__(self, samples: np.ndarray):
        self.batches = iter([{"x": samples}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def float_model() -> onnx.ModelProto:
    """Convolutions, a residual addition, pooling, a sigmoid gate and a classifier."""
    random = np.random.default_rng(0)

    def array(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), name)

    constants = [
        array("w1", 8, 3, 3, 3),
        array("b1", 8),
        array("w2", 8, 8, 3, 3),
        array("b2", 8),
        array("w3", 8, 1, 3, 3),
        array("w4", 10, 8),
        array("b4", 10),
        numpy_helper.from_array(np.array([0, 8], np.int64), "flat"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "p1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Sigmoid", ["c3"], ["s"]),
        helper.make_node("Mul", ["s", "r2"], ["m"]),
        helper.make_node("GlobalAveragePool", ["m"], ["g"]),
        helper.make_node("Reshape", ["g", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "float",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(32, 3, 12, 12)).astype(np.float32)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_a_quantized_model_keeps_its_numbers(format: str, samples: np.ndarray, tmp_path: Path):
    path = tmp_path / "quantized.onnx"
    options = {"weight_type": KIND.QInt8} | FORMATS[format]
    quantization.quantize_static(
        float_model(), str(path), Samples(samples), quant_format=quantization.QuantFormat.QDQ,
        **options,
    )  # fmt: skip
    model = onnx.load(path)
    program = imported(path, ALL)
    runtime = codes_of_runtime(model, {"x": samples})
    found = distances(program, runtime)
    assert len(found) >= 8
    for name, distance in found.items():
        assert np.abs(distance).max() <= 1, name
        assert np.count_nonzero(distance) <= 0.03 * distance.size, name
    outputs = run(program, {"x": samples})
    codes = {"x": program.quantize_input(torch.from_numpy(samples))}
    for name, output in TorchEngine(program).run(codes).items():
        np.testing.assert_array_equal(output.numpy(), outputs[name])
    _compare_constants(program.tensors, model)


def _compare_constants(tensors: dict[str, np.ndarray], model: onnx.ModelProto) -> None:
    """Weights are the file's integers, less their zero point where that fits."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = 0
    for name in ("w1", "w2", "w3", "w4"):
        if f"{name}_quantized" not in constants:
            continue
        codes = numpy_helper.to_array(constants[f"{name}_quantized"]).astype(np.int64)
        zero_point = numpy_helper.to_array(constants[f"{name}_zero_point"]).astype(np.int64)
        wanted = {
            codes.tobytes(),
            (codes - zero_point.reshape(-1, *(1,) * (codes.ndim - 1))).tobytes(),
        }
        assert any(tensor.tobytes() in wanted for tensor in tensors.values()), name
        kept += 1
    assert kept in (0, 4)


def test_scales_zero_points_and_biases_are_the_files(samples: np.ndarray, tmp_path: Path):
    path = tmp_path / "quantized.onnx"
    quantization.quantize_static(
        float_model(), str(path), Samples(samples), quant_format=quantization.QuantFormat.QDQ,
        activation_type=KIND.QInt8, weight_type=KIND.QInt8, per_channel=True,
    )  # fmt: skip
    constants = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer
    }
    program = imported(path)
    edge = program.edges["p1"]
    scale = constants["p1_scale" if "p1_scale" in constants else "r1_scale"]
    assert edge.scale == (float(scale),)
    bias = constants["b4_quantized"].astype(np.int64)
    last = program.steps[-2]
    weight = program.tensors[last.tensors["weight"]]
    zero_point = program.edges[last.inputs[0]].zero_point
    found = program.tensors[last.tensors["bias"]] + zero_point * weight.sum(axis=1)
    np.testing.assert_array_equal(found, bias)


def test_power_of_two_scales_agree_on_every_code():
    """Where no ratio needs rounding, integer and floating-point rescaling are the same."""
    make = QdqModel()
    x = make.input((1, 4, 7, 8), 2.0**-5, 0)
    make.output(make.node("Conv", [x, power_of_two_weight(make)]), 2.0**-3, 0)
    model = make.build()
    program = imported(model, "max78000")
    runtime = codes_of_runtime(model, make.samples)
    (name,) = program.outputs
    half_up = NumpyEngine(program).run({"x0": runtime["x0"]})[name]
    even = imported(model, "onnxruntime")
    half_even = NumpyEngine(even).run({"x0": runtime["x0"]})[even.outputs[0]]
    np.testing.assert_array_equal(half_even, runtime[name])
    assert np.abs(half_up - half_even).max() <= 1


def power_of_two_weight(make: Any) -> str:
    codes = make.constant(make.random.integers(-127, 128, (6, 4, 3, 3)), kind="int8")
    scale = make.constant(2.0**-7, np.float32)
    return make.node("DequantizeLinear", [codes, scale])
