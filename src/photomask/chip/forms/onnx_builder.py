"""The parts that all ONNX forms share: names, nodes, tensors, dimensions, metadata and files."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from photomask.chip.operators import AveragePool
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.dependencies import OptionalPackage
from photomask.documents import write_file
from photomask.errors import ExportError, FormError

if TYPE_CHECKING:
    import onnx

IR_VERSION = 10
"""The version of the file format: onnx reads it from 1.17 on, onnxruntime from 1.20 on.

The newest version that the installed packages write could be too new for other readers.
"""
LARGEST_MODEL = (1 << 31) - 1
"""The size of the largest model in bytes, because protobuf reads no larger message."""
BATCH = "batch"
"""The name of the first dimension of every value that grows with the batch."""
PROGRAM_HASH = "photomask.content_sha256"
"""The key of the metadata entry that holds the hash of the program."""


def onnx_package() -> ModuleType:
    """Returns the package `onnx`.

    Raises:
        MissingDependencyError: it is not installed.
    """
    with OptionalPackage("onnx", "onnx", "writing an ONNX model"):
        importlib.import_module("onnx.helper")
        importlib.import_module("onnx.numpy_helper")
        return importlib.import_module("onnx")


class GraphBuilder:
    """Collects the parts of one model, under the names that the program uses.

    Values have the names of the program's edges and tensors, and nodes the names of its steps. A
    value or node that the program has no name for is called `<step>/<what it is>`. A name that is
    already taken gets a number.

    Attributes:
        program: the program that the model computes.
        onnx: the package `onnx`.
        nodes: the nodes in the order of computation.
    """

    def __init__(self, program: IntegerProgram):
        """Starts an empty graph.

        Raises:
            MissingDependencyError: the package onnx is not installed.
        """
        self.onnx = onnx_package()
        self.program = program
        self.nodes: list[onnx.NodeProto] = []
        self._initializers: dict[bytes, onnx.TensorProto] = {}
        self._functions: dict[str, onnx.FunctionProto] = {}
        self._value_infos: dict[str, onnx.ValueInfoProto] = {}
        self._value_names = set(program.edges)
        self._node_names = {step.name for step in program.steps}

    def value_name(self, step: Step, label: str) -> str:
        """Returns a new name `<step>/<label>` for a value inside a step."""
        return _free(f"{step.name}/{label}", self._value_names)

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        step: Step,
        label: str = "",
        *,
        output: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Adds a node with one output.

        Args:
            operator: the name of the ONNX operator or function.
            inputs: names of values; "" leaves out an optional one.
            step: the step that the node computes or helps to compute; its source goes into the
                node's doc string.
            label: what the node does inside the step; "" gives the node the step's name.
            output: the name of the value; `<step>/<label>` if empty.
            domain: the ONNX domain of the operator.
            attributes: the attributes of the node.

        Returns:
            The output's name.
        """
        output = output or self.value_name(step, label)
        name = _free(f"{step.name}/{label}", self._node_names) if label else step.name
        node = self.onnx.helper.make_node(
            operator, list(inputs), [output], name=name, domain=domain, **attributes
        )
        node.doc_string = f"node {step.node}, {step.source}"
        self.nodes.append(node)
        return output

    def tensor(self, name: str, values: np.ndarray, element_type: int, note: str = "") -> str:
        """Adds an initializer, or finds an equal one that was added under the same name.

        Args:
            name: a tensor of the program, or `<step>/<what it is>`.
            values: the values of the initializer.
            element_type: an `onnx.TensorProto` data type.
            note: the doc string of the initializer.

        Returns:
            The initializer's name. It ends in a number if another tensor has already taken `name`.
        """
        kinds = self.onnx.TensorProto
        if element_type in (kinds.INT4, kinds.UINT4):
            flat = values.ravel().tolist()
            made = self.onnx.helper.make_tensor(name, element_type, values.shape, flat)
        else:
            dtype = self.onnx.helper.tensor_dtype_to_np_dtype(element_type)
            made = self.onnx.numpy_helper.from_array(np.asarray(values, dtype, order="C"), name)
        made.doc_string = note
        key = made.SerializeToString(deterministic=True)
        if key not in self._initializers:
            made.name = _free(name, self._value_names)
            self._initializers[key] = made
        return self._initializers[key].name

    def function(self, function: "onnx.FunctionProto") -> None:
        """Adds a function to the model, unless one of that name was added before."""
        self._functions.setdefault(function.name, function)

    def describe(self, name: str, element_type: int, edge: Edge, note: str = "") -> None:
        """States the type and shape of the value that carries an edge.

        Args:
            name: the name of the value.
            element_type: an `onnx.TensorProto` data type.
            edge: gives the shape and, if there is no note, the doc string.
            note: the doc string of the value; "" describes the edge's format, interval and scale.
        """
        info = self.onnx.helper.make_tensor_value_info(name, element_type, self.dimensions(edge))
        info.doc_string = note or described(edge)
        self._value_infos[name] = info

    def dimensions(self, edge: Edge) -> list[int | str]:
        """Returns an edge's shape; the first dimension is a name if it grows with the batch."""
        rows, *rest = edge.shape
        if not self.grows(edge.name):
            return [rows, *rest]
        return [BATCH if rows == 1 else f"{rows}*{BATCH}", *rest]

    def grows(self, edge: str) -> bool:
        """Tells whether an edge has one set of rows for every sample of a batch."""
        return edge in self.program.links.growing

    def model(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        opsets: dict[str, int],
        doc_string: str,
    ) -> "onnx.ModelProto":
        """Returns the model.

        Args:
            inputs: the names of values that were described, in order.
            outputs: the names of values that were described, in order.
            opsets: the operator set's version by domain; "" is the domain ai.onnx.
            doc_string: a description of the model.
        """
        helper, infos = self.onnx.helper, self._value_infos
        graph = helper.make_graph(
            self.nodes,
            "integer_program",
            [infos[name] for name in inputs],
            [infos[name] for name in outputs],
            initializer=list(self._initializers.values()),
            value_info=[infos[name] for name in infos if name not in {*inputs, *outputs}],
        )
        model = helper.make_model(
            graph,
            producer_name="photomask",
            functions=list(self._functions.values()),
            opset_imports=[helper.make_opsetid(*opset) for opset in opsets.items()],
            ir_version=IR_VERSION,
        )
        model.doc_string = doc_string
        helper.set_model_props(model, metadata(self.program))
        return model


def average_windows(
    operator: AveragePool, spatial: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the kernel and the stride of the windows of an average pool.

    Args:
        operator: the average pool. Adaptive windows follow from the sizes alone.
        spatial: the sizes of the input's spatial axes.

    Raises:
        FormError: adaptive windows differ in size.
    """
    if not operator.adaptive:
        return operator.kernel, operator.stride
    if any(size % count for size, count in zip(spatial, operator.output_size, strict=True)):
        raise FormError(
            f"the adaptive windows have different sizes, because {tuple(spatial)} elements become "
            f"{operator.output_size}; choose an output size that divides the input size"
        )
    kernel = tuple(s // n for s, n in zip(spatial, operator.output_size, strict=True))
    return kernel, kernel


def described(edge: Edge) -> str:
    """Returns the format, interval, scale and zero point of an edge in one line."""
    scale = f"scale {edge.scale[0]:.9g}" if len(edge.scale) == 1 else "a scale for each channel"
    return (
        f"{edge.role}, {edge.format}, {edge.low} to {edge.high}; "
        f"{scale}, zero point {edge.zero_point}"
    )


def metadata(program: IntegerProgram) -> dict[str, str]:
    """Returns a model's metadata: the program's hash, the target and the meaning of every edge."""
    edges = {
        name: {
            "format": str(edge.format),
            "interval": [edge.low, edge.high],
            "scale": list(edge.scale),
            "zero_point": edge.zero_point,
            "channel_axis": edge.channel_axis,
        }
        for name, edge in program.edges.items()
    }
    return {
        PROGRAM_HASH: program.content_hash(),
        "photomask.target": json.dumps(program.target.model_dump(mode="json")),
        "photomask.edges": json.dumps(edges),
    }


def save_onnx(model: "onnx.ModelProto", path: str | Path) -> None:
    """Writes a model as a file that appears completely or not at all.

    Raises:
        ExportError: the model is larger than protobuf can read, or the file could not be written to
            the disk.
    """
    size = model.ByteSize()
    if size > LARGEST_MODEL:
        raise ExportError(
            f"cannot write {path}: the model has {size} bytes, but an ONNX file holds at most "
            f"{LARGEST_MODEL}; use fewer bits, or export memory images instead"
        )
    write_file(Path(path), model.SerializeToString(deterministic=True))


def _free(name: str, taken: set[str]) -> str:
    """Returns `name`, or `name_2` and so on if it is taken, and marks the result as taken."""
    candidate, copy = name, 1
    while candidate in taken:
        copy += 1
        candidate = f"{name}_{copy}"
    taken.add(candidate)
    return candidate
