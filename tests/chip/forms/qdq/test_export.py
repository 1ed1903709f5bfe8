"""Each step of the QDQ form gives the program's codes but for a last bit, and runtimes fuse it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.chip.conversion.flow import FINE, WIDE, Function, converted, inputs_of, randomize
from tests.chip.conversion.test_conversion import Residual
from tests.chip.programs import ProgramBuilder
from torch import Tensor, nn

from photomask.chip import IntegerProgram, Quantizer, Recipe, load_recipe, load_target
from photomask.chip.formats import IntFormat, storage_dtype
from photomask.chip.forms.qdq import QdqForm, qdq_model
from photomask.chip.operators import (
    OPERATORS,
    AveragePool,
    Clamp,
    Convolution,
    Lookup,
    Operator,
    Requantize,
    Reshape,
)
from photomask.chip.program import NumpyEngine, Step
from photomask.chip.quantizers import PerChannel, PerGroup, PerTensor
from photomask.chip.target import ZeroPoints
from photomask.errors import FormError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def session(model: Any, *, fused: bool, saved: Path | None = None) -> Any:
    """Reads a model in ONNX Runtime, with products of int8 by uint8 that never saturate."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_EXTENDED if fused else levels.ORT_DISABLE_ALL
    )
    if saved:
        options.optimized_model_filepath = str(saved)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def kinds_of(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def real_name(program: IntegerProgram, edge: str) -> str:
    return f"{edge}/quantized" if edge in program.inputs else edge


def activations_before(program: IntegerProgram, step: Step) -> set[str]:
    """Returns the quantized edges from which a step computes its output."""
    writers, found = {s.output: s for s in program.steps}, set()
    for name in step.inputs:
        if program.edges[name].role == "accumulator":
            found |= activations_before(program, writers[name])
        else:
            found.add(name)
    return found


def reals_of(program: IntegerProgram, codes: dict[str, np.ndarray], name: str) -> np.ndarray:
    return program.edges[name].dequantize(torch.from_numpy(codes[name])).float().numpy()


def code_differences(
    program: IntegerProgram, model: Any, inputs: list[Tensor]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields, step by step, how codes computed from the program's own inputs differ from its."""
    reals = dict(zip(program.inputs, inputs, strict=True))
    codes = {name: program.quantize_input(x, name).numpy() for name, x in reals.items()}
    oracle = dict(NumpyEngine(program).edges(codes))
    extractor = onnx.utils.Extractor(model)
    for step in program.steps:
        edge = program.edges[step.output]
        before = activations_before(program, step)
        if edge.role == "accumulator" or not before:
            continue
        if isinstance(step.operator, Lookup):  # reads codes
            part = extractor.extract_model([f"{name}/codes" for name in before], [edge.name])
            kind = program.edges[step.inputs[0]].format
            if kind.bits <= 4:
                continue  # NumPy has no such codes to feed
            feeds = {f"{n}/codes": oracle[n].astype(storage_dtype(kind)) for n in before}
        else:
            part = extractor.extract_model([real_name(program, n) for n in before], [edge.name])
            feeds = {real_name(program, n): reals_of(program, oracle, n) for n in before}
        (found,) = session(part, fused=False).run(None, feeds)
        codes_found = np.rint(found.astype(np.float64) / edge.scale[0]) + edge.zero_point
        yield step.name, np.abs(codes_found - oracle[step.output])


def assert_steps_agree(program: IntegerProgram, inputs: list[Tensor], share: float) -> Any:
    model = qdq_model(program)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    differing = compared = 0
    for name, difference in code_differences(program, model, inputs):
        assert difference.max() <= 1, name
        differing += np.count_nonzero(difference)
        compared += difference.size
    assert compared > 0
    assert differing <= share * compared
    return model


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    return randomize(Residual())


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    torch.manual_seed(4)
    return inputs_of((3, 12, 12))


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_is_written(operator: type[Operator]):
    assert QdqForm().refusal(operator) is None


@pytest.mark.parametrize(
    ("recipe", "target", "share"),
    [
        ("w8a8", "onnxruntime", 0.01),
        ("w8a8", "asic", 0.01),
        ("w8a8-signed", "tflite", 0.03),  # its first rounding moves small sums by up to 1/8
        ("w8a8-symmetric", "deeploy", 0.01),
        ("w4a8-group", "asic", 0.01),
        ("w4a4", "asic", 0.01),
    ],
)
def test_each_step_agrees_but_for_rounding(
    network: nn.Module, images: list[Tensor], recipe: str, target: str, share: float
):
    assert_steps_agree(
        converted(network, images, load_recipe(recipe), load_target(target)), images, share
    )


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "subtract": lambda x, y: 0.5 - x - y,
    "multiply": lambda x, y: x * y,
    "matmul": lambda x, y: torch.matmul(x, y.transpose(-1, -2)),
    "concatenate": lambda x, y: torch.cat([x, 3 * y], 1),
    "move": lambda x, y: x.permute(0, 2, 1, 3)[:, :, 1::2].flip(-1) - y[:, :, :2].clamp(-1, 1),
    "pad": lambda x, y: (
        nn.functional.pad(x, (1, 2, 0, 1), value=0.7).reshape(len(y), -1)[:, :4] + y.sum((1, 2))
    ),
    "pools": lambda x, y: nn.functional.avg_pool2d(x, 2) + nn.functional.adaptive_avg_pool2d(y, 2),
    "sum": lambda x, y: x.sum(1) + y.mean(1),
    "functions": lambda x, y: torch.sigmoid(x) + nn.functional.hardswish(y),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_of_two_inputs_agree(case: str):
    inputs = inputs_of((4, 4, 4), (4, 4, 4))
    program = converted(
        Function(FUNCTIONS[case]), inputs, load_recipe("w8a8"), load_target("onnxruntime")
    )
    assert_steps_agree(program, inputs, 0.03)


@pytest.mark.parametrize(
    ("granularity", "symmetric"),
    [
        (PerTensor(), True),
        (PerTensor(), False),
        (PerChannel(), True),
        (PerChannel(), False),
        (PerGroup(3), True),
    ],
)
def test_weights_of_any_granularity_agree(granularity: Any, symmetric: bool):
    torch.manual_seed(0)
    inputs = inputs_of((5, 6, 6))
    model = nn.Sequential(nn.Conv2d(5, 7, 3, padding=1), nn.ReLU(), nn.Linear(6, 3)).eval()
    recipe = Recipe(
        weight=Quantizer(8, symmetric=symmetric, granularity=granularity),
        activation=Quantizer(8, symmetric=False),
    )
    target = WIDE.model_copy(update={"zero_points": ZeroPoints.ALL})
    program = converted(model.eval(), inputs, recipe, target)
    model = assert_steps_agree(program, inputs, 0.01)
    weights = [node for node in model.graph.node if node.name.endswith("/weight")]
    attributes = {a.name: a.i for node in weights for a in node.attribute}
    expected = {"PerTensor": {}, "PerChannel": {"axis": 0}, "PerGroup": {"axis": 1}}
    assert attributes.items() >= expected[type(granularity).__name__].items()
    assert ("block_size" in attributes) == isinstance(granularity, PerGroup)


def test_codes_of_sixteen_bits_agree_to_the_precision_of_float32(
    network: nn.Module, images: list[Tensor]
):
    program = converted(network, images, FINE, WIDE)
    for name, difference in code_differences(program, qdq_model(program), images):
        assert difference.max() <= 2, name


def test_codes_have_the_types_of_their_widths(network: nn.Module, images: list[Tensor]):
    program = converted(network, images, load_recipe("w4a4"), load_target("asic"))
    types = {t.name: t.data_type for t in qdq_model(program).graph.initializer}
    kinds = onnx.TensorProto
    wanted = {4: kinds.INT4, 8: kinds.INT8, 32: kinds.INT32}
    stored = {
        name: format.bits
        for name, format in program.formats.items()
        if name.endswith((".weight", ".bias"))
    }
    assert set(stored.values()) == {4, 8, 32}
    assert all(types[name] == wanted[bits] for name, bits in stored.items())
    narrow = [
        step.output
        for step in program.steps
        if isinstance(step.operator, Requantize)
        and str(program.edges[step.output].format) == "uint4"
    ]
    assert narrow
    assert {types[f"{name}/zero_point"] for name in narrow} == {kinds.UINT4}


@pytest.mark.parametrize(
    ("recipe", "target", "clamps"),
    [("w8a8", "asic", set()), ("w8a8-po2", "max78000", {"Relu"})],
)
def test_a_clamp_stands_only_where_codes_do_not_saturate(
    images: list[Tensor], recipe: str, target: str, clamps: set[str]
):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    program = converted(model, images, load_recipe(recipe), load_target(target))
    assert clamps == {"Relu", "Clip"} & set(kinds_of(qdq_model(program)))


def test_the_runtime_fuses_every_convolution_and_addition(
    network: nn.Module, images: list[Tensor], tmp_path: Path
):
    program = converted(network, images, load_recipe("w8a8"), load_target("onnxruntime"))
    model = qdq_model(program)
    session(model, fused=True, saved=tmp_path / "fused.onnx")
    found = kinds_of(onnx.load(tmp_path / "fused.onnx"))
    assert found.count("QLinearConv") == kinds_of(model).count("Conv") == 3
    assert found.count("QLinearAdd") == kinds_of(model).count("Add") == 1
    assert not {"Conv", "Add"} & set(found)


def test_a_whole_network_agrees_when_fused(small_program: IntegerProgram, small_images: Tensor):
    name, (output,) = small_program.inputs[0], small_program.outputs
    codes = small_program.quantize_input(small_images).numpy()
    expected = NumpyEngine(small_program).run({name: codes})
    model = qdq_model(small_program)
    (found,) = session(model, fused=True).run(None, {name: small_images.numpy()})
    real = reals_of(small_program, expected, output)
    assert np.array_equal(found.argmax(1), real.argmax(1))
    assert np.abs(found - real).max() <= 0.005 * np.ptp(real)


def identity_program(kind: str) -> IntegerProgram:
    """A program that no float form expresses."""
    make, int8 = ProgramBuilder(), IntFormat(bits=8, signed=True)
    x = make.input("x", (1, 2, 5, 5), bits=20 if kind == "width" else 8)
    if kind == "width":
        return make.build(make.step("wide", Reshape(shape=(50,)), [x], format=make.edges[x].format))
    if kind == "padding":
        operator = Convolution(
            stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1, padding_value=7
        )
        tensors = {"weight": np.ones((1, 2, 3, 3), dtype=np.int64), "bias": np.zeros(1, np.int64)}
        return make.build(make.step("odd", operator, [x], tensors, dict.fromkeys(tensors, int8)))
    if kind == "windows":
        pool = AveragePool(
            kernel=(3, 3),
            stride=(1, 1),
            padding=(0, 0),
            output_size=(2, 2),
            zero_point=0,
            adaptive=True,
        )
        return make.build(make.requantize("mean", make.step("odd", pool, [x]), int8))
    clamped = make.step("odd", Clamp(low=0, high=5), [x], format=int8)
    make.edges[clamped] = make.edges[clamped].model_copy(update={"scale": (0.25,)})
    return make.build(clamped)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("width", "'x'.*20-bit codes"),
        ("padding", "'odd'.*pads with 7"),
        ("windows", "'odd'.*different sizes"),
        ("scale", "'odd'.*another scale"),
    ],
)
def test_what_has_no_qdq_form_is_refused_by_its_step(kind: str, message: str):
    with pytest.raises(FormError, match=message):
        qdq_model(identity_program(kind))
