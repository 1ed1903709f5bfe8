"""Real constants meet codes as in ONNX Runtime: in float32, with infinities saturated."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.chip.onnx_import.qdq_models import QdqModel, codes_of_runtime, edge_name, imported, run

from photomask.chip.program import NumpyEngine
from photomask.errors import DocumentError, UnsupportedOperatorError

Make = Callable[[QdqModel, str], str]


def ramp(kind: str = "int8", scale: float = 0.05, zero_point: int = 0) -> tuple[QdqModel, str]:
    """A model whose samples hold every code of its input."""
    make = QdqModel()
    x = make.input((1, 256), scale, zero_point, kind)
    low = 0 if kind.startswith("u") else -128
    codes = np.arange(low, low + 256, dtype=np.float32) - zero_point
    make.samples["x0"] = codes[None] * np.float32(scale)
    return make, x


def assert_codes_are_the_runtimes(make: QdqModel, most: int = 0) -> np.ndarray:
    """Compares the last QuantizeLinear's codes; returns them."""
    model = make.build()
    program = imported(model)
    runtime = codes_of_runtime(model, make.samples)
    inputs = {name: runtime[name] for name in program.inputs}
    (found,) = NumpyEngine(program).run(inputs).values()
    wanted = runtime[edge_name(model.graph.output[0].name.removesuffix("_real"))]
    assert np.abs(found - wanted).max() <= most
    return found


UNBOUNDED: dict[str, Make] = {
    "Reciprocal": lambda make, x: make.node("Reciprocal", [x]),
    "Log": lambda make, x: make.node("Log", [x]),
    "Sqrt": lambda make, x: make.node("Sqrt", [x]),
    "Exp": lambda make, x: make.node("Exp", [x]),
    "division by 0": lambda make, x: make.node("Div", [x, make.constant(0, np.float32)]),
    "division by -0": lambda make, x: make.node("Div", [x, make.constant(-0.0, np.float32)]),
    "overflow": lambda make, x: make.node(
        "Mul", [make.node("Mul", [x, make.constant(3e38, np.float32)]), make.constant(9, "f4")]
    ),
    "infinity less itself": lambda make, x: make.node("Softsign", [make.node("Reciprocal", [x])]),
    "clamped": lambda make, x: make.node("Relu", [make.node("Log", [x])]),
    "inverse of minus 0": lambda make, x: make.node("Reciprocal", [make.node("Neg", [x])]),
    "chain": lambda make, x: make.node("Exp", [make.node("Neg", [make.node("Log", [x])])]),
    "below the lowest": lambda make, x: make.node(
        "ThresholdedRelu", [make.node("Sqrt", [x])], alpha=0.5
    ),
}


@pytest.mark.parametrize("case", UNBOUNDED)
@pytest.mark.parametrize(
    ("scale", "kind", "zero_point"), [(0.05, "int8", 0), (2.0, "int8", -9), (0.3, "uint8", 130)]
)
def test_results_that_are_infinite_or_no_numbers_quantize_as_in_onnx_runtime(
    case: str, scale: float, kind: str, zero_point: int
):
    make, x = ramp(kind, scale, zero_point)
    make.output(UNBOUNDED[case](make, x), 0.2, zero_point, kind)
    found = assert_codes_are_the_runtimes(make, most=1)
    ends = {"int8": {-128, 127}, "uint8": {0, 255}}[kind]
    assert ends & set(found.ravel().tolist()) or case == "below the lowest"


def test_a_reciprocal_of_zero_is_the_highest_code_and_a_logarithm_the_lowest():
    for kind, wanted in (("Reciprocal", [127, 100, 5]), ("Log", [-128, -15, 0])):
        make = QdqModel()
        make.output(make.node(kind, [make.input((1, 3), 0.05, 0)]), 0.2, 0)
        program = imported(make)
        (found,) = run(program, {"x0": np.float32([[0.0, 0.05, 1.0]])}).values()
        assert found.tolist() == [wanted]


VALUES = [0.5, -0.35, 0.7000001, 1e9, -1e9, np.inf, -np.inf, 0.0]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("scale", [0.05, 0.2])
def test_padding_by_any_value_is_quantized_as_in_onnx_runtime(value: float, scale: float):
    """10 * 0.05 is 0.5 in float32, and not in float64."""
    make = QdqModel()
    amounts = make.constant([0, 0, 1, 0, 0, 0, 0, 1], np.int64)
    padding = [make.input((1, 4, 7, 8), 0.05, 0), amounts, make.constant(value, np.float32)]
    make.output(make.node("Pad", padding), scale, 0)
    # The input's own codes lie near the middle of two on the other scale.
    found = assert_codes_are_the_runtimes(make, most=int(scale != 0.05))
    with np.errstate(over="ignore"):
        wanted = np.clip(np.rint(np.float32(value) / np.float32(scale)), -128, 127)
    assert set(found[:, :, 0].ravel().tolist()) == {int(wanted)}


BOUNDS = [(-0.35, 0.5), (-np.inf, 0.7), (0.5, -0.5), (9.0, 20.0), (-20.0, -9.0), (0.125, 0.125)]


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("scale", [0.05, 0.11])
@pytest.mark.parametrize("before", ["codes", "layer", "function"])
def test_bounds_crossed_or_not_clamp_as_in_onnx_runtime(
    bounds: tuple[float, float], scale: float, before: str
):
    make = QdqModel()
    x = make.input((1, 16), 0.05, 3)
    if before == "layer":
        x = make.node("MatMul", [x, make.weight((16, 16), axis=1)])
    elif before == "function":
        x = make.node("Tanh", [x])
    ends = [make.constant(bound, np.float32) for bound in bounds]
    make.output(make.node("Clip", [x, *ends]), scale, 1)
    # A layer's own rescaling may round a tie to the other side.
    assert_codes_are_the_runtimes(make, most=int(before == "layer"))


def test_bounds_that_are_codes_need_no_quantization_behind_them():
    make = QdqModel()
    x = make.input((1, 16), 0.05, 3)
    low, high = (make.constant(np.float32(n) * np.float32(0.05), np.float32) for n in (-7, 11))
    make.output(
        make.node("MatMul", [make.node("Clip", [x, low, high]), make.weight((16, 4), axis=1)])
    )
    steps = [step.operator.kind for step in imported(make).steps]
    assert steps == ["clamp", "linear", "requantize"]


def test_a_bound_beyond_all_codes_that_lifts_every_value_is_no_code():
    """The lowest value is 9.0 then, which the input's own codes do not reach."""
    make = QdqModel()
    low = make.constant(9.0, np.float32)
    x = make.node("Clip", [make.input((1, 16), 0.05, 3), low])
    make.output(make.node("MatMul", [x, make.weight((16, 4), axis=1)]))
    with pytest.raises(UnsupportedOperatorError, match="before a QuantizeLinear"):
        imported(make)


def test_division_is_no_multiplication_by_a_rounded_inverse():
    make, x = ramp(scale=0.049)
    make.output(make.node("Div", [x, make.constant(0.7, np.float32)]), 0.035, 0)
    assert_codes_are_the_runtimes(make)


@pytest.mark.parametrize(
    ("ratio", "training", "taken"),
    [(0.5, False, True), (0.0, True, True), (0.5, True, False), (None, True, False)],
)
def test_only_dropout_that_drops_nothing_is_the_identity(
    ratio: float | None, training: bool, taken: bool
):
    make = QdqModel()
    given = "" if ratio is None else make.constant(ratio, np.float32)
    x = make.node("Dropout", [make.input((1, 8)), given, make.constant(training, np.bool_)])
    make.output(x, 0.05, 3)
    if taken:
        assert_codes_are_the_runtimes(make)
        return
    with pytest.raises(UnsupportedOperatorError, match="training_mode"):
        imported(make)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("Relu", {"alpha": 0.1}),
        ("Identity", {"training_mode": 1}),
        ("Dropout", {"is_test": 0}),
        ("Tanh", {"consumed_inputs": [1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 5}),
        ("ReduceMean", {"axes": [1]}),
    ],
)
def test_attributes_without_a_meaning_are_not_ignored(kind: str, attributes: dict[str, object]):
    make = QdqModel()
    make.output(make.node(kind, [make.input((1, 4, 7, 8))], **attributes))
    with pytest.raises(UnsupportedOperatorError, match="attribute"):
        imported(make)


@pytest.mark.parametrize("kind", ["BatchNormalization", "RandomNormalLike", "Bernoulli", "Shrink"])
def test_operators_that_learn_or_draw_are_refused(kind: str):
    make = QdqModel()
    make.output(make.node(kind, [make.input((1, 4, 7, 8))]))
    with pytest.raises(UnsupportedOperatorError, match="outside the supported set"):
        imported(make)


def test_constants_that_add_axes_before_the_batch_are_refused():
    for kind in ("Add", "Mul", "Div", "PRelu"):
        make = QdqModel()
        constant = make.constant(np.full((1, 1, 1, 1), 0.5), np.float32)
        make.output(make.node(kind, [make.input((1, 8)), constant]))
        with pytest.raises(UnsupportedOperatorError, match="axes before the batch"):
            imported(make)


def test_rolling_samples_along_the_batch_is_refused():
    make = QdqModel()
    amounts = make.constant([1, 0, -1, 0], np.int64)
    make.output(make.node("Pad", [make.input((1, 8)), amounts]), 0.05, 3)
    with pytest.raises(UnsupportedOperatorError, match="batch"):
        imported(make)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([], "rank 0"),
        (["n"], "no axis but the batch"),
        ([3], "no axis but the batch"),
        ([3, "n", 8], "batch, which is axis 0.*axis 1"),
        (["n", "m", 8], "batch, which is axis 0.*axis 1"),
        ([0, 8], "batch.*fixed to 0"),
        (None, "no shape.*rank"),
    ],
)
def test_inputs_without_a_batch_or_sizes_are_refused_for_that_reason(
    shape: list[int | str] | None, words: str
):
    make = QdqModel()
    make.output(make.node("Relu", [make.input((1, 8))]))
    model = make.build()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape))
    with pytest.raises(DocumentError, match=words):
        imported(model)


def test_inputs_of_different_fixed_batches_are_refused():
    make = QdqModel()
    make.output(make.node("Add", [make.input((1, 8)), make.input((1, 8))]))
    model = make.build()
    for value, size in zip(model.graph.input, (1, 4), strict=True):
        value.type.tensor_type.shape.dim[0].dim_value = size
    with pytest.raises(DocumentError, match="fixed to 1 and 4 samples"):
        imported(model)


def test_a_fixed_batch_stays_a_batch():
    make = QdqModel()
    make.output(make.node("Relu", [make.input((1, 8))]), 0.05, 3)
    model = make.build()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
    program = imported(model)
    runtime = codes_of_runtime(model, make.samples)
    (found,) = NumpyEngine(program).run({"x0": runtime["x0"]}).values()
    np.testing.assert_array_equal(found, runtime["relu2"])
