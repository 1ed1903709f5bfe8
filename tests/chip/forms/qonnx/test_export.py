"""QONNX models, read and run by the package qonnx."""

from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.random_program import random_program
from tests.chip.programs import small_program
from torch import nn

from photomask.chip import Recipe, calibrate, convert, load_recipe, prepare
from photomask.chip.forms.onnx_builder import IR_VERSION
from photomask.chip.forms.qonnx import qonnx_model
from photomask.chip.program import IntegerProgram, NumpyEngine
from photomask.chip.quantizers import PerChannel, Quantizer
from photomask.chip.target import PRESETS, Target
from photomask.errors import ExportError

pytest.importorskip("qonnx")

from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_node, execute_onnx
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.cleanup import cleanup_model


@pytest.fixture(autouse=True)
def readable_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """qonnx runs each node as a model of the newest IR, which ONNX Runtime may not read yet."""
    monkeypatch.setattr("onnx.IR_VERSION", IR_VERSION)


class Network(nn.Module):
    """Every kind of step that a convolutional network becomes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.nn.functional.max_pool2d(x, 2)
        x = x + self.depthwise(x)
        x = torch.nn.functional.relu6(self.second(x))
        x = torch.cat([x, -x], dim=1)
        x = torch.nn.functional.avg_pool2d(x, 2)
        return self.classifier(x.permute(0, 2, 3, 1).flatten(1))


class Gates(nn.Module):
    """Tables, products of activations, padding, constants."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(2, 4, 3, padding=1)
        self.offset = nn.Parameter(torch.randn(4, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x) + self.offset
        x = x * torch.sigmoid(x)
        x = torch.nn.functional.pad(x, (1, 0, 2, -1), value=0.5)
        scores = torch.matmul(x, x.transpose(2, 3))
        return scores.clamp(-1, 2).mean(dim=(2, 3))


def converted(model: nn.Module, recipe: Recipe | str, target: Target | str) -> IntegerProgram:
    torch.manual_seed(0)
    images = torch.randn(16, 2, 8, 8)
    prepared = prepare(
        model, load_recipe(recipe) if isinstance(recipe, str) else recipe, images[:1]
    )
    calibrate(prepared, [[images]])
    return convert(prepared, PRESETS[target] if isinstance(target, str) else target)


def wrapped(program: IntegerProgram) -> Any:
    """Returns the model as qonnx keeps it, with shapes and data types inferred."""
    model = ModelWrapper(qonnx_model(program))
    return model.transform(InferShapes()).transform(InferDataTypes(allow_scaledint_dtypes=True))


def codes_of(
    model: Any,
    program: IntegerProgram,
    samples: np.ndarray,
    oracle: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Runs samples one by one; returns the codes of every activation.

    With the oracle's codes, every node reads those, so that a difference is that of one edge.
    """
    (given,) = (value.name for value in model.graph.input)
    found: dict[str, list[np.ndarray]] = {}
    for index, sample in enumerate(samples):
        context = model.make_empty_exec_context() | {given: sample[None]}
        for node in model.graph.node:
            execute_node(node, context, model.graph, opset_version=13)
            edge = program.edges.get(node.output[0])
            if edge is None or edge.role == "accumulator":
                continue
            value = context[edge.name].astype(np.float64)
            codes = np.rint(value / edge.scale[0]).astype(np.int64) + edge.zero_point
            found.setdefault(edge.name, []).append(codes)
            if oracle is not None:
                rows = oracle[edge.name][index % len(oracle[edge.name]) :]
                real = (rows[:1] - edge.zero_point) * edge.scale[0]
                context[edge.name] = real.astype(np.float32)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def samples_of(program: IntegerProgram, count: int = 4) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns real samples and every edge of the oracle."""
    samples = np.random.default_rng(3).normal(size=(count, 2, 8, 8)).astype(np.float32)
    codes = program.quantize_input(torch.from_numpy(samples)).numpy()
    return samples, dict(NumpyEngine(program).edges({program.inputs[0]: codes}))


@pytest.mark.parametrize("network", [Network, Gates])
@pytest.mark.parametrize(
    ("recipe", "target"),
    [("w8a8", "asic"), ("w8a8-signed", "tflite"), ("w4a8", "asic"), ("w8a8", "onnxruntime")],
)
def test_codes_are_those_of_the_oracle_but_for_roundings(
    network: type[nn.Module], recipe: str, target: str
):
    torch.manual_seed(1)
    program = converted(network(), recipe, target)
    samples, oracle = samples_of(program)
    found = codes_of(wrapped(program), program, samples, oracle)
    activations = {name for name, edge in program.edges.items() if edge.role != "accumulator"}
    assert set(found) == activations
    for name, codes in found.items():
        distance = np.abs(codes - oracle[name])
        assert distance.max() <= (name not in program.inputs), name
        wide = program.edges[name].format.bits > 8
        assert np.mean(distance > 0) < (0.5 if wide else 0.02), name


def test_power_of_two_targets_are_exact():
    torch.manual_seed(1)
    program = converted(Network(), "w8a8-po2", "max78000")
    samples, oracle = samples_of(program, 8)
    found = codes_of(wrapped(program), program, samples)
    assert set(program.outputs) <= set(found)
    for name, codes in found.items():
        np.testing.assert_array_equal(codes, oracle[name], err_msg=name)


def test_weights_keep_their_integers_scales_and_bits():
    torch.manual_seed(1)
    program = converted(Network(), "w4a8", "asic")
    model = qonnx_model(program)
    constants = {t.name: np.frombuffer(t.raw_data, "<f4").reshape(t.dims) for t in
                 model.graph.initializer if t.data_type == 1}  # fmt: skip
    quants = {n.input[0]: n for n in model.graph.node if n.op_type == "Quant"}
    checked = 0
    for step in program.steps:
        if "weight" not in step.tensors or step.operator.kind != "convolution":
            continue
        node = quants[f"{step.name}/weight"]
        values, scale, _, bits = (constants[name] for name in node.input)
        codes = program.tensors[step.tensors["weight"]]
        np.testing.assert_array_equal(np.rint(values / scale), codes)
        assert float(bits) == program.formats[step.tensors["weight"]].bits
        x, y = program.edges[step.inputs[0]], program.edges[step.output]
        np.testing.assert_allclose(scale.ravel() * x.scale[0], y.scale, rtol=1e-6)
        checked += 1
    assert checked == 3


@pytest.mark.parametrize("network", [Network, Gates])
def test_a_model_that_qonnx_has_cleaned_up_computes_the_same(network: type[nn.Module]):
    program = converted(network(), "w8a8", "asic")
    samples, _ = samples_of(program, 1)
    model, cleaned = wrapped(program), cleanup_model(ModelWrapper(qonnx_model(program)))
    results = []
    for each in (model, cleaned):
        (given,), (taken,) = each.graph.input, each.graph.output
        results.append(execute_onnx(each, {given.name: samples})[taken.name])
        assert all(each.get_tensor_shape(n) for node in each.graph.node for n in node.output)
    np.testing.assert_array_equal(*results)


class Signs(Quantizer):
    """Codes -1 and 1: weights of one bit."""

    def __init__(self):
        super().__init__(2, granularity=PerChannel(), narrow=True)

    def quantize(self, x: torch.Tensor) -> torch.Tensor:
        ones = torch.ones_like(x)
        return torch.where(x >= 0, ones, -ones)


def test_weights_of_one_bit_are_bipolar():
    torch.manual_seed(1)
    recipe = Recipe(weight=Signs(), activation=Quantizer(8, symmetric=False))
    program = converted(Network(), recipe, "asic")
    model = qonnx_model(program)
    assert sum(node.op_type == "BipolarQuant" for node in model.graph.node) == 4
    samples, oracle = samples_of(program)
    found = codes_of(wrapped(program), program, samples, oracle)
    for name in program.outputs:
        assert np.abs(found[name] - oracle[name]).max() <= 1


def test_quant_nodes_have_the_domain_and_attributes_of_qonnx():
    program = converted(Network(), "w8a8-signed", "asic")
    model = qonnx_model(program)
    assert {o.domain: o.version for o in model.opset_import}["qonnx.custom_op.general"] == 1
    for node in model.graph.node:
        if node.op_type == "Quant":
            assert node.domain == "qonnx.custom_op.general"
            assert {a.name for a in node.attribute} == {"signed", "narrow", "rounding_mode"}
            assert len(node.input) == 4


def test_data_types_of_weights_are_scaled_integers():
    program = converted(Network(), "w4a8", "asic")
    model = wrapped(program)
    types = {
        step.name: str(model.get_tensor_datatype(f"{step.name}/weight_quantized"))
        for step in program.steps
        if "weight" in step.tensors
    }
    assert len(types) == 4
    for step in program.steps:
        if step.name in types:
            bits = program.formats[step.tensors["weight"]].bits
            assert types[step.name] == f"SCALEDINT<{bits}>"


def test_scales_that_do_not_explain_the_multipliers_are_made_up_for():
    """A program's edges may say anything about scales; its integers decide."""
    program, codes = small_program()
    model = wrapped(program)
    oracle = dict(NumpyEngine(program).edges({"x": codes}))
    samples = (codes * program.edges["x"].scale[0]).astype(np.float32)
    found = codes_of(model, program, samples, oracle)
    for name, result in found.items():
        assert np.abs(result - oracle[name]).max() <= 1, name


@pytest.mark.parametrize("seed", range(30))
def test_any_program_becomes_a_valid_model_or_is_refused(seed: int):
    program = random_program(seed)
    try:
        model = qonnx_model(program)
    except ExportError as error:
        assert "QONNX cannot express" in str(error)  # noqa: PT017
        return
    shapes = wrapped(program)
    for name, edge in program.edges.items():
        assert tuple(shapes.get_tensor_shape(name)) == edge.shape
    assert [value.name for value in model.graph.output] == list(dict.fromkeys(program.outputs))
