"""What has no integer form is named, all of it at once, and never guessed."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.chip.onnx_import.qdq_models import QdqModel, codes_of_runtime, distances, imported

from photomask.chip.onnx_import import import_qdq
from photomask.chip.target import PRESETS
from photomask.errors import DocumentError, TargetError, UnsupportedOperatorError


def image(make: QdqModel) -> str:
    return make.input((1, 4, 7, 8))


def refused(make: QdqModel | onnx.ModelProto) -> str:
    with pytest.raises(UnsupportedOperatorError) as caught:
        imported(make)
    return str(caught.value)


def test_all_unsupported_operators_are_named_at_once():
    make = QdqModel()
    x = make.output(make.node("ArgMax", [image(make)]))
    y = make.output(make.node("LRN", [make.input((1, 4, 7, 8))], size=3))
    make.output(make.node("Einsum", [x, y], equation="abcd,abcd->abcd"))
    make.nodes[-1].domain = ""
    message = refused(make)
    for kind in ("ArgMax", "LRN", "Einsum"):
        assert f"({kind})" in message


def test_operators_of_other_domains_are_not_those_of_onnx():
    make = QdqModel()
    make.output(make.node("Relu", [image(make)], domain="mine"))
    assert "(mine.Relu)" in refused(make)


def test_transposed_convolution_is_refused():
    make = QdqModel()
    make.output(make.node("ConvTranspose", [image(make), make.weight((4, 6, 3, 3))]))
    assert "ConvTranspose" in refused(make)


def test_a_computation_between_quantizations_is_refused():
    make = QdqModel()
    product = make.node("Conv", [image(make), make.weight((6, 4, 3, 3))])
    make.output(make.node("Sigmoid", [product]))
    assert "before a QuantizeLinear" in refused(make)


def test_real_weights_are_refused():
    make = QdqModel()
    weight = make.constant(make.random.normal(size=(6, 4, 3, 3)), np.float32)
    make.output(make.node("Conv", [image(make), weight]))
    assert "must be a quantized constant" in refused(make)


def test_values_that_two_quantizations_read_differently_are_refused():
    make = QdqModel()
    product = make.node("Conv", [image(make), make.weight((6, 4, 3, 3))])
    make.output(product)
    scale = [make.constant(0.3, np.float32), make.constant(0, kind="int8")]
    codes = make.node("QuantizeLinear", [product, *scale])
    real = make.node("DequantizeLinear", [codes, *scale])
    make.outputs.append(helper.make_tensor_value_info(real, TensorProto.FLOAT, None))
    assert "a different scale" in refused(make)


def test_a_product_that_is_read_before_it_is_quantized_is_refused():
    make = QdqModel()
    product = make.node("Conv", [image(make), make.weight((6, 4, 3, 3))])
    make.output(product)
    make.output(make.node("Relu", [product]))
    assert "before a QuantizeLinear" in refused(make)


@pytest.mark.parametrize("end", ["output", "input"])
def test_ends_that_are_not_quantized_are_refused(end: str):
    make = QdqModel()
    x = image(make)
    if end == "output":
        y = make.node("Conv", [x, make.weight((6, 4, 3, 3))])
        make.outputs.append(helper.make_tensor_value_info(y, TensorProto.FLOAT, None))
    else:
        make.output(make.node("Relu", [x]))
        make.inputs.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ("b", 3)))
    message = refused(make)
    assert end in message
    assert "not quantized" in message


@pytest.mark.parametrize(
    ("kind", "constants", "attributes"),
    [
        ("Reshape", [[1, 4, 56, 1], [2, 112]], {}),
        ("Transpose", [], {"perm": [1, 0, 2, 3]}),
        ("Concat", [], {"axis": 0}),
        ("Flatten", [], {"axis": 2}),
        ("ReduceMean", [[0]], {}),
        ("Squeeze", [[0]], {}),
        ("Gather", [[0]], {"axis": 0}),
        ("Slice", [[0], [1], [0], [2]], {}),
        ("Pad", [[1, 0, 0, 0, 0, 0, 0, 0]], {}),
        ("Split", [], {"axis": 0, "num_outputs": 1}),
    ],
)
def test_what_would_mix_samples_is_refused(
    kind: str, constants: list[list[int]], attributes: dict[str, object]
):
    make = QdqModel()
    x = image(make)
    if kind == "Reshape":
        constants = constants[1:]
    if kind == "Slice":
        constants = [[1], [5], [0]]
    inputs = [make.constant(values, np.int64) for values in constants]
    make.output(make.node(kind, [x, x, *inputs][kind != "Concat" :], **attributes))
    assert f"({kind})" in refused(make)


def test_a_slice_forward_to_before_the_start_holds_nothing():
    make = QdqModel()
    bounds = [make.constant([n], np.int64) for n in (-1, -(1 << 62), 3, 5)]
    make.output(make.node("Slice", [image(make), *bounds]), 0.05, 3)
    assert "leaves no element" in refused(make)


def test_the_sources_of_an_imported_program_name_the_files_nodes():
    make = QdqModel()
    make.output(make.node("Conv", [image(make), make.weight((6, 4, 3, 3))], name="features/0"))
    program = imported(make)
    assert [step.output for step in program.steps] == ["features_0.accumulator", "features_0"]
    assert {step.source for step in program.steps} == {"model:.features.0.Conv"}
    assert program.provenance["imported_from"] == "model"


def test_names_that_differ_only_in_punctuation_stay_apart():
    make = QdqModel()
    x = image(make)
    for name in ("a.b", "a/b", "keys", "values", "0"):
        x = make.quantized(make.node("Conv", [x, make.weight((4, 4, 1, 1))], name=name), 0.1)
    make.output(make.node("Relu", [x]))
    program = imported(make)
    assert len(program.steps) == 11
    assert {"a_b", "a_b_2", "tensor_keys", "tensor_values", "tensor_0"} <= set(program.edges)


def test_what_the_target_lacks_is_refused():
    make = QdqModel()
    make.output(make.node("Conv", [image(make), make.weight((6, 4, 3, 3))]))
    with pytest.raises(TargetError, match="zero point"):
        import_qdq(make.build(), PRESETS["deeploy"])


def test_codes_may_be_the_models_inputs_and_outputs():
    make = QdqModel()
    make.inputs.append(helper.make_tensor_value_info("x", TensorProto.UINT8, ("n", 4, 7, 8)))
    scale = [make.constant(0.1, np.float32), make.constant(9, kind="uint8")]
    x = make.node("DequantizeLinear", ["x", *scale])
    y = make.node("Conv", [x, make.weight((6, 4, 3, 3))])
    codes = make.node("QuantizeLinear", [y, *scale], name="codes")
    make.outputs.append(helper.make_tensor_value_info(codes, TensorProto.UINT8, None))
    program = imported(make)
    assert str(program.edges["x"].format) == "uint8"
    assert program.edges["x"].zero_point == 9
    assert program.outputs == ("conv" + y.removeprefix("conv"),)


def blocks(scale: np.ndarray) -> QdqModel:
    """A matrix product whose weights have a scale for each block of four inputs."""
    make = QdqModel()
    codes = make.constant(make.random.integers(-8, 8, (8, 3)), kind="int8")
    weight = make.node(
        "DequantizeLinear",
        [codes, make.constant(scale, np.float32), make.constant(np.zeros((2, 3)), kind="int8")],
        axis=0,
        block_size=4,
    )
    make.output(make.node("MatMul", [make.input((1, 8)), weight]))
    return make


def test_block_scales_with_a_common_unit_agree_with_onnx_runtime():
    make = blocks(np.array([[3, 2, 7], [5, 1, 7]]) * 0.0013)
    model = make.build()
    found = distances(imported(model), codes_of_runtime(model, make.samples))
    assert max(np.abs(distance).max() for distance in found.values()) <= 1


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (np.array([[1, 2, 3], [np.pi, 1, 1]]) * 0.01, "no multiples"),
        (np.array([[1, 2, 3]]) * 0.01, "shape"),
        (np.array([[1, 1, 1], [254, 1, 5001]]) * 0.001, "no multiples"),
    ],
)
def test_block_scales_without_a_common_unit_are_refused(scale: np.ndarray, message: str):
    make = blocks(scale)
    with pytest.raises((UnsupportedOperatorError, DocumentError), match=message):
        imported(make)


@pytest.mark.parametrize(("opset", "kind"), [(19, "int16"), (20, "uint16"), (19, "int4")])
def test_codes_of_a_type_that_came_later_are_refused(opset: int, kind: str):
    make = QdqModel(opset=opset)
    x = make.quantized(make.input((1, 4, 7, 8)), kind=kind)
    make.output(make.node("Relu", [x]))
    message = refused(make)
    assert f"of type {kind.upper()}, which operator set {opset} does not allow" in message


def test_codes_are_of_the_type_that_the_graph_declares():
    make = QdqModel()
    make.output(make.node("Relu", [image(make)]))
    model = make.build()
    codes = next(node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear")
    declared = helper.make_tensor_value_info(codes, TensorProto.INT8, None)
    model.graph.value_info.append(declared)
    imported(model)
    model.graph.value_info[0].type.tensor_type.elem_type = TensorProto.UINT8
    with pytest.raises(DocumentError, match="the graph declares type 2"):
        imported(model)
