"""Channels whose sums need more bits than a target has, as ONNX Runtime's tool makes them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from tests.chip.onnx_import.qdq_models import QdqModel, codes_of_runtime, distances, imported

from photomask.chip.target import PRESETS, Target
from photomask.errors import TargetError

WIDE = Target(name="wide", accumulator_bits=40, bias_bits=40, multiplier_bits=20)


class Samples:
    """Calibration data as ONNX Runtime asks for it."""

    def __init__(self, samples: np.ndarray):
        self.batches = iter([{"x": samples}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def nearly_dead(tensors: dict[str, np.ndarray], node: onnx.NodeProto, shape: list[object]):
    """A float model of one layer."""
    graph = helper.make_graph(
        [node],
        "float",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("kind", ["convolution", "linear"])
@pytest.mark.parametrize("bias", [-4.5, 4.5])
@pytest.mark.parametrize("per_channel", [True, False])
def test_biases_that_fill_32_bits_agree_with_onnx_runtime(
    kind: str, bias: float, per_channel: bool, tmp_path: Path
):
    random = np.random.default_rng(2)
    shape, size = ((4, 3, 5, 5), (3, 6, 6)) if kind == "convolution" else ((4, 60), (60,))
    weight = random.normal(size=shape).astype(np.float32) / 5
    weight[1 if per_channel else slice(None)] *= np.float32(1.2e-5)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    if kind == "linear":
        node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    tensors = {"w": weight, "b": np.float32([0.1, bias, 0.2, 0.3])}
    x = random.normal(size=(16, *size)).astype(np.float32)
    path = tmp_path / "q.onnx"
    quantization.quantize_static(
        nearly_dead(tensors, node, ["n", *size]), str(path), Samples(x),
        quant_format=quantization.QuantFormat.QDQ, per_channel=per_channel,
        activation_type=quantization.QuantType.QInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    biases = [
        numpy_helper.to_array(t)
        for t in onnx.load(path).graph.initializer
        if t.name == "b_quantized"
    ]
    assert np.abs(biases[0]).max() > 2**30
    for target in (PRESETS["onnxruntime"], PRESETS["asic"]):
        found = distances(imported(path, target), codes_of_runtime(onnx.load(path), {"x": x}))
        assert found
        assert max(np.abs(distance).max() for distance in found.values()) <= 1


def layer(bias: float, scale: float = 1e-4, relu: bool = False) -> QdqModel:
    """A layer of two channels, the second with a real bias."""
    make = QdqModel()
    codes = make.constant(make.random.integers(-127, 128, (16, 2)), kind="int8")
    parameters = [make.constant([1e-3, scale], np.float32), make.constant([0, 0], kind="int8")]
    weight = make.node("DequantizeLinear", [codes, *parameters], axis=1)
    product = make.node("MatMul", [make.input((1, 16)), weight])
    y = make.node("Add", [product, make.constant([0.5, bias], np.float32)])
    make.output(make.node("Relu", [y]) if relu else y)
    return make


@pytest.mark.parametrize("bias", [3e5, -3e5, 3e7, -3e12])
@pytest.mark.parametrize("relu", [False, True])
def test_a_channel_that_always_saturates_may_have_any_bias(bias: float, relu: bool):
    make = layer(bias, relu=relu)
    model = make.build()
    found = distances(imported(model), codes_of_runtime(model, make.samples))
    assert max(np.abs(distance).max() for distance in found.values()) <= 1


def test_a_channel_that_would_lose_more_than_a_quarter_of_a_code_is_refused():
    make = layer(0.5)
    narrow = PRESETS["asic"].model_copy(update={"accumulator_bits": 16, "bias_bits": 16})
    with pytest.raises(TargetError, match="bits"):
        imported(make, narrow)


def test_nothing_changes_where_the_sums_fit():
    make = layer(0.5)
    model = make.build()
    narrow, wide = imported(model), imported(model, WIDE)
    for one, other in zip(narrow.steps, wide.steps, strict=True):
        for role in ("weight", "bias"):
            if role in one.tensors:
                np.testing.assert_array_equal(
                    narrow.tensors[one.tensors[role]], wide.tensors[other.tensors[role]]
                )
