"""Large files take time and memory in proportion: nothing is looked through for each of many."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from tests.chip.onnx_import.qdq_models import QdqModel, imported
from tests.chip.onnx_import.untrusted import refuse

from photomask.errors import TargetError, UnsupportedOperatorError

MOST_SECONDS = 10.0
"""Of processor time, for any file."""


def one_name(make: QdqModel, x: str, count: int) -> None:
    """Names that are the same but for punctuation."""
    for at in range(count):
        x = make.node("Transpose", [x], name="." * (at % 50 + 1) + "-" * (at // 50), perm=[0, 1])
    make.output(x, 0.05, 3)


def outputs(make: QdqModel, x: str, count: int) -> None:
    for at in range(count):
        make.output(make.node("Tanh", [x], name=f"t{at}"))


@pytest.mark.parametrize(("case", "count"), [(one_name, 9000), (outputs, 1000)])
def test_many_nodes_are_read_in_time(case: Callable[[QdqModel, str, int], None], count: int):
    make = QdqModel()
    case(make, make.input((1, 4)), count)
    start = time.process_time()
    imported(make)
    assert time.process_time() - start < MOST_SECONDS


def transposed(make: QdqModel, constant: str) -> str:
    turned = make.node("Transpose", [constant], perm=[1, 0])
    return make.node("Reshape", [turned, make.constant([600, 500], np.int64)])


AMPLIFIERS: dict[str, Callable[[QdqModel, str], object]] = {
    "copies": transposed,
    "codes": lambda make, c: make.node("QuantizeLinear", [c, make.constant(0.1, np.float32)]),
    "rows": lambda make, c: make.node(
        "Gather", [c, make.constant(np.zeros(4096), np.int64)], axis=0
    ),
}


@pytest.mark.parametrize("case", AMPLIFIERS)
def test_constants_computed_again_and_again_are_refused(case: str):
    make = QdqModel()
    x, constant = make.input((1, 4)), make.constant(np.ones((600, 500)), np.float32)
    for _ in range(300):
        AMPLIFIERS[case](make, constant)
    make.output(make.node("Relu", [x]))
    assert "than the file holds" in refuse(make.build(), UnsupportedOperatorError)


def test_a_weight_that_hundreds_of_layers_share_is_refused():
    make = QdqModel()
    x, codes = make.input((1, 500)), make.constant(np.ones((500, 600)), np.int8)
    weight = make.node("DequantizeLinear", [codes, make.constant(0.1, np.float32)])
    for at in range(100):
        make.output(make.node("MatMul", [x, weight], name=f"layer{at}"))
    assert "than the file holds" in refuse(make.build(), UnsupportedOperatorError)


def test_a_constant_operand_that_many_read_is_there_once():
    make = QdqModel()
    x = make.input((1, 4))
    codes = make.constant([[1, 2, 3, 4]], kind="int8")
    constant = make.node("DequantizeLinear", [codes, make.constant(0.1, np.float32)])
    for at in range(3):
        make.output(make.node("Add", [x, constant], name=f"sum{at}"))
    assert [s.operator.kind for s in imported(make).steps].count("constant") == 1


def test_tables_of_many_functions_of_sixteen_bits_are_refused():
    make = QdqModel()
    x = make.input((1, 4), kind="int16")
    for _ in range(513):
        x = make.quantized(make.node("Tanh", [x]), kind="int16")
    make.output(x)
    with pytest.raises(UnsupportedOperatorError, match="tables of"):
        imported(make)


def test_tables_that_codes_may_leave_are_refused():
    make = QdqModel()
    x = make.input((1, 4), kind="int8")
    codes = make.nodes[-2].output[0]
    index = make.node("Cast", [codes], to=6)
    table = make.constant(np.arange(100), np.int8)
    chosen = make.node("Gather", [table, index], axis=0)
    scale = [make.constant(0.1, np.float32), make.constant(0, kind="int8")]
    real = make.node("DequantizeLinear", [chosen, *scale])
    make.output(make.node("Add", [real, x]))
    with pytest.raises(TargetError, match="table holds the codes 0 to 99, but they reach -128"):
        imported(make)
