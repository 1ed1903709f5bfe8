"""Kinds: quantized ONNX models, whole and with their constants in a file beside them."""

import math
import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from photomask.chip import IntegerProgram, load_target
from photomask.chip.forms.qdq import qdq_model
from photomask.chip.onnx_import import import_qdq

from . import networks
from .chip import MOST_ELEMENTS, use_program
from .specimen import AmbiguousError, Files, Kind, WrongError

MODEL = "model/model.onnx"
DATA = "model/weights.data"
OUTSIDE = "outside.data"
"""`OUTSIDE` holds the same bytes as `DATA`, in the folder above the model's."""
MOST_DIFFERENCE = 1
"""Of a code from ONNX Runtime's: it rescales by floats, and rounds the middle to even."""


def _use(program: IntegerProgram, content: bytes, files: Files) -> None:
    """Runs every step on what ONNX Runtime computed before it, and compares what comes out."""
    use_program(program, files)
    if sum(math.prod(edge.shape) for edge in program.edges.values()) > MOST_ELEMENTS:
        return
    draw = np.random.default_rng(1)
    codes, samples = {}, {}
    for name in program.inputs:
        edge = program.edges[name]
        code = draw.integers(edge.low, edge.high, edge.shape, dtype=np.int64, endpoint=True)
        codes[name] = code
        samples[name] = ((code - edge.zero_point) * np.array(edge.scale)).astype(np.float32)
    runtime = _codes_of_runtime(content, samples)
    for name, code in codes.items():
        if not np.array_equal(runtime[name], code):
            raise WrongError(f"ONNX Runtime quantizes the input {name!r} otherwise")
    values = dict(codes)
    for step in program.steps:
        inputs = [values[name] for name in step.inputs]
        found = step.operator.run_numpy(inputs, program.parameters(step))
        expected = runtime.get(step.output)
        if expected is not None and found.shape != expected.shape:
            raise WrongError(f"{step.output!r}: shape {found.shape}, in ONNX {expected.shape}")
        if expected is not None and (far := int(np.abs(found - expected).max())) > MOST_DIFFERENCE:
            raise WrongError(f"{step.output!r} is {far} away from ONNX Runtime's code")
        values[step.output] = found if expected is None else expected


def _codes_of_runtime(content: bytes, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the codes of every QuantizeLinear, by the name that its edge has."""
    import onnx
    import onnxruntime

    model = onnx.ModelProto.FromString(content)
    nodes = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    known = {value.name for value in model.graph.output}
    for node in nodes:
        if node.output[0] not in known:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = {_edge_name(value.name): value.name for value in session.get_inputs()}
    given = {names[name]: value for name, value in samples.items()}
    found = session.run([node.output[0] for node in nodes], given)
    return {
        _edge_name(node.input[0]): codes.astype(np.int64)
        for node, codes in zip(nodes, found, strict=True)
    }


def _edge_name(tensor: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", tensor).strip("_")


def _with_data(files: Files) -> bytes:
    """Returns the model with its external data in it; none may lie outside of its folder."""
    import onnx

    model = onnx.ModelProto.FromString(files[MODEL])
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if len(entries) != len(tensor.external_data):
            raise AmbiguousError(f"{tensor.name}: a key of its external data is there twice")
        place = PurePosixPath(MODEL).parent / entries["location"]
        if ".." in place.parts or str(place) not in files:
            raise WrongError(f"{tensor.name} was read from {entries['location']!r}")
        offset, data = int(entries.get("offset", 0)), files[str(place)]
        length = int(entries.get("length", _bytes_of(tensor)))
        if not 0 <= offset <= offset + length <= len(data):
            raise WrongError(f"{tensor.name} lies at {offset}, {length} bytes of {len(data)}")
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
        tensor.raw_data = data[offset : offset + length]
    return model.SerializeToString()


def _bytes_of(tensor: Any) -> int:
    """Returns the bytes that a tensor's shape and type need."""
    import onnx

    packed = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    bits = 4 if tensor.data_type in packed else 8 * dtype.itemsize
    return -(-math.prod(tensor.dims) * bits // 8)


def _kind(name: str, path: str, use: Any, fixed: tuple[str, ...] = ()) -> Kind:
    return Kind(
        name,
        lambda folder: import_qdq(folder / path, load_target("asic")),
        lambda program: {},
        lambda files: {},
        use=use,
        fixed=fixed,
    )


KINDS = (
    _kind("qdq", "model.onnx", lambda found, files: _use(found, files["model.onnx"], files)),
    _kind("qdq with data", MODEL, lambda found, files: _use(found, _with_data(files), files),
          fixed=(OUTSIDE,)),
)  # fmt: skip
"""ONNX holds no hash."""


def make(folder: Path) -> None:
    """Writes a good specimen of each kind into a folder of its name."""
    import onnx

    model = qdq_model(networks.program())
    (folder / "qdq").mkdir()
    (folder / "qdq/model.onnx").write_bytes(model.SerializeToString())
    place = folder / "qdq with data"
    (place / MODEL).parent.mkdir(parents=True)
    onnx.save_model(
        model,
        place / MODEL,
        save_as_external_data=True,
        location=PurePosixPath(DATA).name,
        size_threshold=0,
    )
    (place / OUTSIDE).write_bytes((place / DATA).read_bytes())
