"""Each operator between DequantizeLinear and QuantizeLinear, beside ONNX Runtime."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.chip.onnx_import.qdq_models import (
    QdqModel,
    codes_of_runtime,
    distances,
    edge_name,
    imported,
)

from photomask.chip.program import NumpyEngine

Make = Callable[[QdqModel], str]
FUNCTIONS = {
    "Abs": {},
    "Celu": {"alpha": 0.7},
    "Elu": {"alpha": 0.6},
    "Erf": {},
    "Exp": {},
    "Gelu": {},
    "HardSigmoid": {"alpha": 0.3},
    "HardSwish": {},
    "LeakyRelu": {"alpha": 0.2},
    "Mish": {},
    "Neg": {},
    "Selu": {},
    "Sigmoid": {},
    "Sign": {},
    "Softplus": {},
    "Softsign": {},
    "Tanh": {},
    "ThresholdedRelu": {"alpha": 0.5},
}


def image(make: QdqModel) -> str:
    return make.input((1, 4, 7, 8))


def convolution(make: QdqModel, **attributes: object) -> str:
    groups = int(attributes.get("group", 1))  # type: ignore[call-overload]
    weight = make.weight((6, 4 // groups, 3, 3))
    bias = make.constant(make.random.normal(size=6), np.float32)
    return make.node("Conv", [image(make), weight, bias], **attributes)


def old_convolution(make: QdqModel) -> str:
    return make.node("Conv", [image(make), make.weight((6, 4, 3, 3), axis=None)], auto_pad="VALID")


def one_axis_convolution(make: QdqModel) -> str:
    return make.node("Conv", [make.input((1, 4, 9)), make.weight((6, 4, 3))], pads=[2, 1])


def gemm(make: QdqModel, transposed: int) -> str:
    shape = (5, 12) if transposed else (12, 5)
    weight = make.weight(shape, axis=1 - transposed)
    bias = make.constant(make.random.normal(size=5), np.float32)
    return make.node("Gemm", [make.input((1, 12)), weight, bias], transB=transposed)


def matmul_and_bias(make: QdqModel) -> str:
    product = make.node("MatMul", [make.input((1, 3, 12)), make.weight((12, 5), axis=1)])
    return make.node("Add", [product, make.constant(make.random.normal(size=5), np.float32)])


def transposed_weight(make: QdqModel) -> str:
    weight = make.node("Transpose", [make.weight((5, 12))], perm=[1, 0])
    return make.node("MatMul", [make.input((1, 3, 12)), weight])


def attention_scores(make: QdqModel) -> str:
    a, b = make.input((1, 2, 5, 6)), make.input((1, 2, 6, 7), 0.03, -7)
    return make.node("MatMul", [a, b])


def residual(make: QdqModel, kind: str) -> str:
    return make.node(kind, [image(make), make.input((1, 4, 7, 8), 0.03, -20)])


def added_constant(make: QdqModel, kind: str) -> str:
    constant = make.constant(make.random.integers(-128, 128, (4, 1, 8)), kind="int8")
    scale = [make.constant(0.02, np.float32), make.constant(5, kind="int8")]
    return make.node(kind, [image(make), make.node("DequantizeLinear", [constant, *scale])])


def concatenation(make: QdqModel) -> str:
    return make.node("Concat", [image(make), make.input((1, 3, 7, 8), 0.03, 1)], axis=1)


def clipped_convolution(make: QdqModel) -> str:
    bounds = [make.constant(-0.3, np.float32), make.constant(1.7, np.float32)]
    clipped = make.node("Clip", [convolution(make), *bounds])
    return make.node("Relu", [clipped])


def pooled_convolution(make: QdqModel) -> str:
    return make.node("MaxPool", [convolution(make)], kernel_shape=[2, 2], strides=[2, 2])


def two_functions(make: QdqModel) -> str:
    scaled = make.node("Mul", [image(make), make.constant(0.5, np.float32)])
    shifted = make.node("Add", [make.constant(0.25, np.float32), scaled])
    return make.node("Tanh", [make.node("Relu", [shifted])])


def average(make: QdqModel, **attributes: object) -> str:
    return make.node("AveragePool", [image(make)], kernel_shape=[3, 2], **attributes)


def mean(make: QdqModel, kind: str) -> str:
    return make.node(kind, [image(make), make.constant([2, 3], np.int64)], keepdims=0)


COMPUTING: dict[str, Make] = {
    "convolution": convolution,
    "convolution, strided": lambda make: convolution(make, strides=[2, 1], pads=[1, 0, 2, 1]),
    "convolution, grouped": lambda make: convolution(make, group=2, dilations=[2, 1]),
    "convolution, same": lambda make: convolution(make, auto_pad="SAME_UPPER", strides=[2, 2]),
    "convolution, same lower": lambda make: convolution(make, auto_pad="SAME_LOWER"),
    "convolution, valid": old_convolution,
    "convolution, one axis": one_axis_convolution,
    "convolution, clipped": clipped_convolution,
    "convolution, pooled": pooled_convolution,
    "gemm": lambda make: gemm(make, 0),
    "gemm, transposed": lambda make: gemm(make, 1),
    "matmul, bias": matmul_and_bias,
    "matmul, transposed weight": transposed_weight,
    "matmul, two activations": attention_scores,
    "add": lambda make: residual(make, "Add"),
    "sub": lambda make: residual(make, "Sub"),
    "mul": lambda make: residual(make, "Mul"),
    "add, constant": lambda make: added_constant(make, "Add"),
    "mul, constant": lambda make: added_constant(make, "Mul"),
    "concat": concatenation,
    "average pool": average,
    "average pool, padded": lambda make: average(make, pads=[1, 1, 1, 1]),
    "average pool, counted": lambda make: average(
        make, pads=[1, 1, 1, 1], count_include_pad=1, strides=[2, 2]
    ),
    "average pool, uneven": lambda make: average(make, pads=[1, 0, 2, 1], count_include_pad=1),
    "average pool, ceil": lambda make: average(make, strides=[2, 2], ceil_mode=1),
    "global average": lambda make: make.node("GlobalAveragePool", [image(make)]),
    "reduce mean": lambda make: mean(make, "ReduceMean"),
    "reduce sum": lambda make: mean(make, "ReduceSum"),
    "rescaling": lambda make: make.node("Identity", [image(make)]),
    "relu": lambda make: make.node("Relu", [image(make)]),
    "clip": lambda make: make.node(
        "Clip",
        [image(make), make.constant(-0.31, np.float32), make.constant(0.77, np.float32)],
    ),
    "two functions": two_functions,
    "division": lambda make: make.node("Div", [image(make), make.constant(3, np.float32)]),
    "softmax": lambda make: make.node("Softmax", [image(make)]),
    "softmax, old": lambda make: make.node("Softmax", [image(make)], axis=3),
    "prelu": lambda make: make.node("PRelu", [image(make), make.constant([0.3], np.float32)]),
    **{
        name: lambda make, name=name, attributes=attributes: make.node(
            name, [image(make)], **attributes
        )
        for name, attributes in FUNCTIONS.items()
    },
}


@pytest.mark.parametrize("case", COMPUTING, ids=str)
@pytest.mark.parametrize("scale", [0.05, 0.0173])
def test_every_edge_is_within_one_code_of_onnx_runtime(case: str, scale: float):
    make = QdqModel()
    make.output(COMPUTING[case](make), scale)
    model = make.build()
    program = imported(model)
    runtime = codes_of_runtime(model, make.samples)
    found = distances(program, runtime)
    assert found
    for name, distance in found.items():
        assert np.abs(distance).max() <= 1, name
        # At 0.05 ties are many: the mean of six codes, for one.
        assert scale == 0.05 or np.count_nonzero(distance) <= 0.02 * distance.size, name
        assert np.ptp(runtime[name]) > 1, name


MOVING: dict[str, Make] = {
    "identity": lambda make: make.node("Identity", [image(make)]),
    "dropout": lambda make: make.node("Dropout", [image(make)]),
    "relu": lambda make: make.node("Relu", [image(make)]),
    "max pool": lambda make: make.node(
        "MaxPool", [image(make)], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0]
    ),
    "max pool, uneven": lambda make: make.node(
        "MaxPool", [image(make)], kernel_shape=[3, 3], pads=[0, 1, 2, 0]
    ),
    "max pool, ceil": lambda make: make.node(
        "MaxPool", [image(make)], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
    ),
    "global max": lambda make: make.node("GlobalMaxPool", [image(make)]),
    "reshape": lambda make: make.node(
        "Reshape", [image(make), make.constant([0, 2, -1, 8], np.int64)]
    ),
    "reshape, free batch": lambda make: make.node(
        "Reshape", [image(make), make.constant([-1, 224], np.int64)]
    ),
    "flatten": lambda make: make.node("Flatten", [image(make)]),
    "transpose": lambda make: make.node("Transpose", [image(make)], perm=[0, 2, 3, 1]),
    "squeeze": lambda make: make.node(
        "Squeeze", [make.input((1, 4, 1, 8)), make.constant([-2], np.int64)]
    ),
    "unsqueeze": lambda make: make.node(
        "Unsqueeze", [image(make), make.constant([2, 5], np.int64)]
    ),
    "slice": lambda make: make.node(
        "Slice",
        [image(make)]
        + [make.constant(n, np.int64) for n in ([1, -1], [1 << 62, -(1 << 62)], [1, 3], [2, -2])],
    ),
    "gather": lambda make: make.node(
        "Gather", [image(make), make.constant([2, -1, 0], np.int64)], axis=1
    ),
    "gather, one": lambda make: make.node(
        "Gather", [image(make), make.constant(2, np.int64)], axis=2
    ),
    "pad": lambda make: make.node(
        "Pad", [image(make), make.constant([0, 1, 0, 2, 0, 0, 1, 0], np.int64)]
    ),
    "concat": lambda make: make.node("Concat", [image(make), image(make)], axis=-1),
}


@pytest.mark.parametrize("case", MOVING, ids=str)
def test_moving_values_keeps_their_codes(case: str):
    make = QdqModel()
    make.output(MOVING[case](make), scale=0.05, zero_point=3)
    model = make.build()
    program = imported(model)
    runtime = codes_of_runtime(model, make.samples)
    inputs = {name: runtime[name] for name in program.inputs}
    (output,) = NumpyEngine(program).run(inputs).values()
    last = edge_name(model.graph.output[0].name.removesuffix("_real"))
    np.testing.assert_array_equal(output, runtime[last])


def test_split_gives_every_piece():
    make = QdqModel()
    x = image(make)
    pieces = ["first", "second"]
    sizes = make.constant([1, 3], np.int64)
    make.node("Split", [x, sizes], name="first", axis=1)
    make.nodes[-1].output.append("second")
    for piece in pieces:
        make.output(piece, 0.05, 3)
    model = make.build()
    program = imported(model)
    runtime = codes_of_runtime(model, make.samples)
    found = NumpyEngine(program).run({name: runtime[name] for name in program.inputs})
    for piece in pieces:
        np.testing.assert_array_equal(found[piece], runtime[piece])


def test_shapes_computed_in_the_graph_are_folded():
    make = QdqModel()
    x = image(make)
    shape = make.node("Shape", [x])
    batch = make.node("Gather", [shape, make.constant([0], np.int64)], axis=0)
    rest = make.node("Slice", [shape] + [make.constant(n, np.int64) for n in ([1], [3])])
    wanted = make.node("Concat", [batch, rest, make.constant([-1], np.int64)], axis=0)
    make.output(make.node("Reshape", [x, wanted]), 0.05, 3)
    assert imported(make).edges["reshape6"].shape == (1, 4, 7, 8)
