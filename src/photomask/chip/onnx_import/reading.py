"""Reads an ONNX file and checks its structure, before anything in it is believed."""

import importlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomask.chip.onnx_import.tensors import MOST_BYTES, shortened
from photomask.chip.onnx_import.wire import check_wire
from photomask.dependencies import OptionalPackage
from photomask.errors import DocumentError, UsageError
from photomask.stages import stage

if TYPE_CHECKING:
    from onnx import ModelProto

MOST_NODES = 10_000
MOST_NAME_LENGTH = 1024
OPSETS = range(10, 29)
"""Versions of ONNX's own operators that the importer knows."""
OWN_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class ModelFile:
    """A model whose structure was checked.

    Attributes:
        model: the parsed file.
        name: of the file, for errors and provenance.
        folder: that external data must lie in; None where there is no file.
        opset: version of ONNX's own operators.
    """

    model: Any
    name: str
    folder: Path | None
    opset: int


@stage(__name__, "read ONNX model")
def read_model(source: "str | os.PathLike[str] | ModelProto") -> ModelFile:
    """Reads and checks a model.

    Raises:
        DocumentError: too large, truncated, or of a structure that no valid model has.
        UsageError: the source is neither a path nor a model.
        MissingDependencyError: the package onnx is not installed.
    """
    with OptionalPackage("onnx", "onnx", "import of ONNX models"):
        importlib.import_module("onnx")  # before protobuf, which comes with it
        from google.protobuf.message import DecodeError
        from onnx import ModelProto

    if isinstance(source, ModelProto):
        name, folder = "model", None
        content = source.SerializeToString()
    else:
        if not isinstance(source, str | os.PathLike):
            raise UsageError(
                f"import_qdq reads a path or an onnx.ModelProto, not {type(source).__name__}; "
                "onnx.load_from_string makes a ModelProto of bytes"
            )
        path = Path(source)
        name, folder = shortened(path.name), path.parent
        content = _read(path)
    check_wire(content, ModelProto.DESCRIPTOR, name)
    try:
        model = ModelProto.FromString(content)
    except DecodeError as error:
        raise DocumentError(f"{name} is not an ONNX model: {error}") from error
    _check_model(model, name)
    return ModelFile(model, name, folder, _opset(model, name))


def _read(path: Path) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | _NO_WAIT), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DocumentError(f"{path} is not a plain file")
            if status.st_size > MOST_BYTES:
                raise DocumentError(
                    f"{path} has {status.st_size} bytes; at most {MOST_BYTES} are read"
                )
            start = file.read(1)
            if start and start[0] < 8:  # before a gigabyte of zeros is read
                raise DocumentError(f"{path} is no ONNX model: it starts with byte {start[0]}")
            return start + file.read(status.st_size - 1)
    except (OSError, ValueError) as error:
        raise DocumentError(f"cannot read {path}: {error}") from error


_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
"""A pipe in the place of the model must not make the reader wait."""


def _opset(model: Any, name: str) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS]
    if len(versions) != 1:
        raise DocumentError(f"{name} must name one version of ONNX's operators, not {versions[:8]}")
    if versions[0] not in OPSETS:
        raise DocumentError(
            f"{name} uses operator set {versions[0]}; the importer knows {OPSETS[0]} to "
            f"{OPSETS[-1]}. Convert it with onnx.version_converter"
        )
    return versions[0]


def _check_model(model: Any, name: str) -> None:
    graph = model.graph
    if model.functions:
        raise DocumentError(
            f"{name} has functions of its own; replace them with what they hold "
            "(onnx.inliner.inline_local_functions)"
        )
    if graph.sparse_initializer:
        raise DocumentError(f"{name} has sparse tensors")
    if len(graph.node) > MOST_NODES:
        raise DocumentError(f"{name} has {len(graph.node)} nodes; at most {MOST_NODES} are read")
    if not graph.input or not graph.output:
        raise DocumentError(f"{name} has no graph with an input and an output")
    constants = [tensor.name for tensor in graph.initializer]
    initialized = set(constants)
    inputs = [value.name for value in graph.input if value.name not in initialized]
    # Names of the form "" stand for absent optional outputs.
    computed = [output for node in graph.node for output in node.output if output]
    _check_names([*constants, *inputs, *computed], name)
    _check_order(graph, {*constants, *inputs}, name)


def _check_names(names: list[str], where: str) -> None:
    seen = set()
    for name in names:
        if not name or len(name) > MOST_NAME_LENGTH:
            raise DocumentError(f"{where}: a tensor is named {shortened(name)!r}")
        if name in seen:
            raise DocumentError(f"{where}: two tensors are named {shortened(name)!r}")
        seen.add(name)


def _check_order(graph: Any, known: set[str], where: str) -> None:
    """Each node reads what is known before it, so that there are no cycles."""
    for node in graph.node:
        _check_known(node.input, known, f"{where}: {describe(node)}")
        known |= set(node.output)
    outputs = [value.name for value in graph.output]
    if "" in outputs:
        raise DocumentError(f"{where}: an output of the graph has no name")
    _check_known(outputs, known, f"{where}: the graph")


def _check_known(names: Iterable[str], known: set[str], who: str) -> None:
    for name in names:
        if name and name not in known:
            raise DocumentError(
                f"{who} reads {shortened(name)!r}, which nothing before it computes: the nodes "
                "are out of order, or a cycle"
            )


def describe(node: Any) -> str:
    """Returns a node's name and operator, as errors show it."""
    name = node.name or next((output for output in node.output if output), "")
    domain = "" if node.domain in OWN_DOMAINS else f"{node.domain}."
    return f"node {shortened(name)!r} ({shortened(domain + node.op_type)})"
