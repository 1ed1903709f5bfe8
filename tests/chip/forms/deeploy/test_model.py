"""Models for Deeploy, run node by node as Deeploy's kernels compute."""

import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from photomask.chip import calibrate, convert, load_recipe, prepare
from photomask.chip.formats import Interval
from photomask.chip.forms.deeploy import deeploy_model
from photomask.chip.forms.deeploy.check import requant_shift
from photomask.chip.operators import Requantize
from photomask.chip.program import IntegerProgram, NumpyEngine
from photomask.chip.recipe import Recipe
from photomask.chip.target import PRESETS, Rounding
from photomask.errors import DataError, ExportError

onnx = pytest.importorskip("onnx")
TARGET = PRESETS["deeploy"].model_copy(update={"multiplier_bits": 8})


class Network(nn.Module):
    """All that has a form in Deeploy."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.second = nn.Conv2d(8, 6, 3, stride=2)
        self.classifier = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = F.max_pool2d(x, 2)
        x = x + self.depthwise(x)
        x = F.avg_pool2d(x, 2, stride=1, padding=1)
        x = torch.relu(self.second(x))
        return self.classifier(x.mean(dim=(2, 3)))


def program_of(model: nn.Module, target: Any = TARGET) -> IntegerProgram:
    torch.manual_seed(0)
    images = torch.randn(16, 2, 12, 12)
    symmetric = load_recipe("w8a8-symmetric")
    recipe = Recipe(weight=symmetric.weight, activation=symmetric.activation, output_bits=8)
    prepared = prepare(model, recipe, images[:1])
    calibrate(prepared, [[images]])
    return convert(prepared, target)


@pytest.fixture(scope="module")
def program() -> IntegerProgram:
    torch.manual_seed(1)
    return program_of(Network())


def codes_of(program: IntegerProgram, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    edges = [program.edges[name] for name in program.inputs]
    return {e.name: random.integers(e.low, e.high + 1, e.shape) for e in edges}


def run(model: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a model in int64, refusing whatever leaves 32 bits."""
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    values = {name: array.astype(np.int64) for name, array in values.items()} | inputs
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        found = compute(node.op_type, [values[name] for name in node.input], attributes)
        assert np.abs(found).max() < 1 << 31
        values[node.output[0]] = found
    return values


def compute(kind: str, inputs: list[np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    if kind == "RequantShift":
        numbers = {
            name: int(onnx.numpy_helper.to_array(attributes[name]))
            for name in ("div", "n_levels", "signed")
        }
        assert np.abs(inputs[0] * inputs[1]).max() < 1 << 31
        assert (inputs[0] * inputs[1] + inputs[2]).max() + numbers["div"] // 2 < 1 << 31
        return requant_shift(*inputs, **numbers)[0]
    if kind == "Reshape":
        return inputs[0].reshape(inputs[1])
    if kind in ("Mul", "Add"):
        assert inputs[0].shape == inputs[1].shape
        return inputs[0] * inputs[1] if kind == "Mul" else inputs[0] + inputs[1]
    if kind == "Gemm":
        assert attributes["transB"]
        return inputs[0] @ inputs[1].T + inputs[2]
    x = torch.from_numpy(inputs[0]).double()
    top, left, bottom, right = attributes["pads"]
    x = F.pad(x, (left, right, top, bottom))
    if kind == "Conv":
        weight = torch.from_numpy(inputs[1]).double()
        y = F.conv2d(x, weight, stride=attributes["strides"], groups=attributes["group"])
    else:
        assert kind == "MaxPool"
        y = F.max_pool2d(x, attributes["kernel_shape"], attributes["strides"])
    return y.numpy().astype(np.int64)


def test_the_model_computes_the_same_codes(program: IntegerProgram):
    for seed in range(5):
        codes = codes_of(program, seed)
        made = deeploy_model(program, codes)
        values = run(made.model, made.inputs)
        oracle = dict(NumpyEngine(program).edges(codes))
        np.testing.assert_array_equal(values["output_0"], oracle[program.outputs[0]])
        np.testing.assert_array_equal(made.outputs["output_0"], oracle[program.outputs[0]])
        for name, edge in program.edges.items():
            if edge.role == "activation" and name in values:
                np.testing.assert_array_equal(values[name], oracle[name])


def test_names_are_identifiers_and_carriers_are_those_of_deeploy(program: IntegerProgram):
    model = deeploy_model(program, codes_of(program)).model
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 10)]
    kinds = {node.op_type for node in model.graph.node}
    assert kinds == {"Conv", "RequantShift", "MaxPool", "Mul", "Add", "Reshape", "Gemm"}
    identifier = re.compile(r"[A-Za-z]\w*")
    names = [name for node in model.graph.node for name in (node.name, *node.input, *node.output)]
    assert all(identifier.fullmatch(name) for name in names)
    described = [v.name for v in (*model.graph.input, *model.graph.value_info, *model.graph.output)]
    assert sorted(described) == sorted({n for node in model.graph.node for n in node.output}
                                       | {"input_0"})  # fmt: skip
    for tensor in model.graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        assert kind == {"weight": "INT8", "factor": "INT16", "shape": "INT64"}.get(
            re.sub(r"_\d+$", "", tensor.name).rpartition("_")[2], "INT32"
        )


def test_attributes_of_requant_shift_are_tensors(program: IntegerProgram):
    for node in deeploy_model(program, codes_of(program)).model.graph.node:
        if node.op_type == "RequantShift":
            assert {a.name: a.type for a in node.attribute} == dict.fromkeys(
                ("div", "n_levels", "signed"), onnx.AttributeProto.TENSOR
            )
            assert len(node.input) == 3


def test_wide_multipliers_exceed_32_bits():
    torch.manual_seed(1)
    program = program_of(Network(), PRESETS["deeploy"])
    with pytest.raises(ExportError, match="multiplier_bits"):
        deeploy_model(program, codes_of(program))


def test_all_that_has_no_form_is_named_at_once():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(2, 4, 3, dilation=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.convolution(x)) * torch.sigmoid(x[:, :1, 2:-2, 2:-2])

    program = program_of(Gate())
    with pytest.raises(ExportError) as caught:
        deeploy_model(program, codes_of(program))
    for word in ("convolution", "lookup", "multiply", "slice", "test_model.py"):
        assert word in str(caught.value)


def test_zero_points_are_refused():
    model = nn.Conv2d(2, 4, 3)
    prepared = prepare(model, load_recipe("w8a8"), torch.randn(1, 2, 12, 12))
    calibrate(prepared, [[torch.randn(8, 2, 12, 12)]])
    program = convert(prepared, PRESETS["asic"])
    with pytest.raises(ExportError, match="zero point"):
        deeploy_model(program, codes_of(program))


def test_codes_of_another_shape_or_range_are_refused(program: IntegerProgram):
    codes = codes_of(program)["x"]
    for wrong in (codes.repeat(2, axis=0), codes + 1000, codes.astype(np.int8)):
        with pytest.raises(DataError):
            deeploy_model(program, {"x": wrong})
    with pytest.raises(DataError):
        deeploy_model(program, {})


@given(data=st.data())
def test_requant_shift_is_our_requantization(data: st.DataObject):
    """For every multiplier, shift and bias: half up after the addition, then saturation."""
    x = np.array(data.draw(st.lists(st.integers(-(1 << 20), 1 << 20), min_size=1, max_size=8)))
    multiplier, bias = data.draw(st.integers(0, 255)), data.draw(st.integers(-(1 << 20), 1 << 20))
    shift, bits = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 8))
    signed = data.draw(st.integers(0, 1))
    low = -(1 << (bits - 1)) if signed else 0
    operator = Requantize(
        rounding=Rounding.HALF_UP, offset=0, zero_point=0, low=low, high=low + (1 << bits) - 1
    )
    parameters = {"multiplier": np.array([multiplier]), "shift": np.array([shift])}
    operator.output_interval([Interval(int(x.min()), int(x.max()))], parameters)
    expected = operator.run_numpy([(x + bias)[:, None]], parameters)
    mul = np.array([multiplier])
    found, _ = requant_shift(x[:, None], mul, bias * mul, 1 << shift, 1 << bits, signed)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("div", [-2, 0, 1, 3, 6])
def test_requant_shift_divides_by_powers_of_two(div: int):
    with pytest.raises(ValueError, match="power of two"):
        requant_shift(np.zeros(1), np.ones(1), np.zeros(1), div, 256, 1)
