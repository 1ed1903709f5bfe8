"""Files that lie: each is refused by an error of ours, at once, and without much memory."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from tests.chip.onnx_import.qdq_models import QdqModel
from tests.chip.onnx_import.untrusted import (
    MOST_SECONDS,
    TARGET,
    initializer,
    refuse,
    small_model,
)

from photomask.chip.onnx_import import import_qdq
from photomask.chip.program import IntegerProgram
from photomask.errors import PhotomaskError, UsageError


def huge_claim(model: onnx.ModelProto) -> None:
    initializer(model, "DequantizeLinear", 0).dims[0] = 1 << 40


def negative_size(model: onnx.ModelProto) -> None:
    initializer(model, "DequantizeLinear", 0).dims[0] = -6


def short_data(model: onnx.ModelProto) -> None:
    tensor = initializer(model, "QuantizeLinear", 1)
    tensor.raw_data = tensor.raw_data[:-1]


def numbers_missing(model: onnx.ModelProto) -> None:
    del initializer(model, "DequantizeLinear", 2).int32_data[:]


def unknown_type(model: onnx.ModelProto) -> None:
    initializer(model, "QuantizeLinear", 1).data_type = 77


def text_tensor(model: onnx.ModelProto) -> None:
    initializer(model, "QuantizeLinear", 1).data_type = TensorProto.STRING


def many_axes(model: onnx.ModelProto) -> None:
    initializer(model, "QuantizeLinear", 1).dims.extend([1] * 1000)


def segment(model: onnx.ModelProto) -> None:
    initializer(model, "QuantizeLinear", 1).segment.begin = 1


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def out_of_order(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))


def same_output(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = model.graph.node[0].output[0]


def same_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def no_name(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].name = ""


def endless_name(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].name = "x" * 1_000_000


def no_input(model: onnx.ModelProto) -> None:
    del model.graph.input[:]


def no_output(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def nameless_output(model: onnx.ModelProto) -> None:
    model.graph.output.add()


def unknown_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


def free_axis(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def huge_input(model: onnx.ModelProto) -> None:
    for axis in (1, 2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 1 << 16


def negative_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = -1


def text_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def no_shape(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def future_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 1000


def functions(model: onnx.ModelProto) -> None:
    model.functions.add(name="f", domain="mine")


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def too_many_nodes(model: onnx.ModelProto) -> None:
    for index in range(10_001):
        model.graph.node.add(op_type="Identity", input=["x0"], output=[f"copy{index}"])


def scale_of(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = initializer(model, "QuantizeLinear", 1)
        tensor.raw_data = np.float32(value).tobytes()

    change.__name__ = f"scale {value}"
    return change


def wrong_zero_point(model: onnx.ModelProto) -> None:
    (named,) = (t for t in model.graph.initializer if t.name == model.graph.node[2].input[2])
    named.data_type = TensorProto.UINT8


STRUCTURES = [
    huge_claim,
    negative_size,
    short_data,
    numbers_missing,
    unknown_type,
    text_tensor,
    many_axes,
    segment,
    cycle,
    out_of_order,
    same_output,
    same_constant,
    no_name,
    endless_name,
    no_input,
    no_output,
    nameless_output,
    unknown_output,
    free_axis,
    huge_input,
    negative_input,
    text_input,
    no_shape,
    no_opset,
    future_opset,
    functions,
    sparse,
    too_many_nodes,
    scale_of(float("nan")),
    scale_of(float("inf")),
    scale_of(0.0),
    scale_of(-0.5),
    wrong_zero_point,
]


@pytest.mark.parametrize("change", STRUCTURES, ids=lambda change: change.__name__)
def test_a_file_that_contradicts_itself_is_refused(
    change: Callable[[onnx.ModelProto], None], tmp_path: Path
):
    model = small_model()
    change(model)
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    assert "bad.onnx" in refuse(path)


HUGE_ATTRIBUTES = {
    "stride": {"strides": [1 << 62, 1]},
    "no stride": {"strides": [0, 1]},
    "padding": {"pads": [1 << 40, 0, 0, 0]},
    "negative padding": {"pads": [-3, 0, 0, 0]},
    "dilation": {"dilations": [1 << 40, 1]},
    "groups": {"group": 1 << 40},
    "no groups": {"group": 0},
    "kernel": {"kernel_shape": [1 << 40, 3]},
    "a text": {"strides": "one"},
    "unknown mode": {"auto_pad": "SIDEWAYS"},
}


@pytest.mark.parametrize("case", HUGE_ATTRIBUTES)
def test_attributes_beyond_reason_are_refused(case: str):
    make = QdqModel()
    x = make.input((1, 4, 7, 8))
    make.output(make.node("Conv", [x, make.weight((6, 4, 3, 3))], **HUGE_ATTRIBUTES[case]))
    assert "Conv" in refuse(make.build(), PhotomaskError)


@pytest.mark.parametrize("count", [1 << 20, 1 << 40])
def test_padding_that_would_need_gigabytes_is_refused(count: int):
    make = QdqModel()
    amounts = make.constant([0, 0, count, count, 0, 0, count, count], np.int64)
    make.output(make.node("Pad", [make.input((1, 4, 7, 8)), amounts]))
    assert "shape" in refuse(make.build(), PhotomaskError)


def test_constants_that_double_again_and_again_are_refused():
    make = QdqModel()
    x = make.input((1, 4, 7, 8))
    numbers = make.constant(np.ones(64), np.int64)
    for _ in range(40):
        numbers = make.node("Concat", [numbers, numbers], axis=0)
    make.output(make.node("Reshape", [x, numbers]))
    assert "more than 4096 constant numbers" in refuse(make.build(), PhotomaskError)


def test_what_is_no_plain_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe")
    refuse(tmp_path)
    refuse(tmp_path / "missing.onnx")
    refuse(Path("/dev/zero"))


def test_a_gigabyte_of_zeros_is_refused(tmp_path: Path):
    path = tmp_path / "zeros.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    assert "no ONNX model" in refuse(path)


def test_files_of_many_tiny_messages_are_refused(tmp_path: Path):
    """Two bytes a node: a parser would make an object of hundreds of bytes of each."""
    nodes = b"\x0a\x00" * 1_000_000
    model = b"\x3a" + _length(nodes) + nodes
    (tmp_path / "many.onnx").write_bytes(model)
    assert "fields" in refuse(tmp_path / "many.onnx")


def test_deep_nesting_is_refused(tmp_path: Path):
    """Graphs in attributes of nodes of graphs in attributes …"""
    graph = b""
    for _ in range(200):
        attribute = b"\x32" + _length(graph) + graph
        node = b"\x2a" + _length(attribute) + attribute
        graph = b"\x0a" + _length(node) + node
    (tmp_path / "deep.onnx").write_bytes(b"\x3a" + _length(graph) + graph)
    assert "deep" in refuse(tmp_path / "deep.onnx")


def _length(content: bytes) -> bytes:
    size, encoded = len(content), bytearray()
    while size >= 0x80:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)


def test_every_truncation_is_refused(tmp_path: Path):
    content = small_model().SerializeToString()
    path = tmp_path / "cut.onnx"
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(PhotomaskError):
            import_qdq(path, TARGET)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_are_imported_or_refused(data: st.DataObject, tmp_path: Path):
    """Whatever bytes change, what comes is a program or an error of ours."""
    content = bytearray(CONTENT)
    changes = st.lists(
        st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
    for position, value in data.draw(changes):
        content[position] = value
    _import_or_refuse(bytes(content), tmp_path)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=400))
def test_garbage_is_refused(content: bytes, tmp_path: Path):
    _import_or_refuse(content, tmp_path)


CONTENT = small_model().SerializeToString()


def _import_or_refuse(content: bytes, folder: Path) -> None:
    path = folder / "any.onnx"
    path.write_bytes(content)
    start = time.perf_counter()
    with contextlib.suppress(PhotomaskError):
        assert isinstance(import_qdq(path, TARGET), IntegerProgram)
    assert time.perf_counter() - start < MOST_SECONDS


def test_names_that_no_terminal_or_document_can_show_are_replaced(tmp_path: Path):
    model = small_model()
    model.producer_name = "tool\0\x1b[31m"
    model.graph.node[2].name = "line\n\x1b[2J" + "x" * 5000
    path = tmp_path / os.fsdecode(b"a\xff\n.onnx")
    path.write_bytes(model.SerializeToString())
    program = import_qdq(path, TARGET)
    shown = [*program.provenance.values(), *(step.source for step in program.steps)]
    assert program.provenance["imported_from"] == "a??.onnx"
    assert all(text.isprintable() and len(text) < 200 for text in shown)


@pytest.mark.parametrize("source", [3, None, b"model.onnx"])
def test_what_is_neither_path_nor_model_is_refused(source: Any):
    with pytest.raises(UsageError, match="path or an"):
        import_qdq(source, TARGET)
