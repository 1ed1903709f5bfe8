"""What the tests of files that lie have in common."""

import time
import tracemalloc
from pathlib import Path

import onnx
import pytest
from tests.chip.onnx_import.qdq_models import QdqModel

from photomask.chip.onnx_import import import_qdq
from photomask.chip.target import PRESETS
from photomask.errors import DocumentError, PhotomaskError

TARGET = PRESETS["asic"]
MOST_SECONDS = 1.0
MOST_BYTES = 200 << 20


def small_model() -> onnx.ModelProto:
    make = QdqModel()
    x = make.input((1, 4, 7, 8))
    make.output(make.node("Conv", [x, make.weight((6, 4, 3, 3))]))
    return make.build()


def refuse(source: onnx.ModelProto | Path, error: type[PhotomaskError] = DocumentError) -> str:
    """Imports what must be refused, in a second of processor time and 200 MB; returns why."""
    start = time.process_time()
    with pytest.raises(error) as caught:
        import_qdq(source, TARGET)
    assert time.process_time() - start < MOST_SECONDS
    tracemalloc.start()
    try:
        with pytest.raises(error):
            import_qdq(source, TARGET)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    return str(caught.value)


def initializer(model: onnx.ModelProto, node: str, position: int) -> onnx.TensorProto:
    """Returns the constant that the first node of a kind reads at a position."""
    named = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type == node and n.input[position] in named]
    return named[nodes[-1].input[position]]
