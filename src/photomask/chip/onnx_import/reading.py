"""Reads an ONNX file, and checks its structure before anything in it is used."""

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
"""The versions of ONNX's own operators that the importer supports."""
OWN_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class ModelFile:
    """A model whose structure was checked.

    Attributes:
        model: the parsed file.
        name: the name of the file, for errors and provenance.
        folder: the folder that must hold external data; None where there is no file.
        opset: the version of ONNX's own operators.
    """

    model: Any
    name: str
    folder: Path | None
    opset: int


@stage(__name__, "read ONNX model")
def read_model(source: "str | os.PathLike[str] | ModelProto") -> ModelFile:
    """Returns a model after checking its structure.

    Raises:
        DocumentError: the file is too large or truncated, or its structure is not valid.
        UsageError: the source is neither a path nor a model.
        MissingDependencyError: the package onnx is not installed.
    """
    with OptionalPackage("onnx", "onnx", "import of ONNX models"):
        importlib.import_module("onnx")  # imported first, because protobuf is installed with it
        from google.protobuf.message import DecodeError
        from onnx import ModelProto

    if isinstance(source, ModelProto):
        name, folder = "model", None
        content = source.SerializeToString()
    else:
        if not isinstance(source, str | os.PathLike):
            raise UsageError(
                f"import_qdq reads a path or an onnx.ModelProto, found {type(source).__name__}; "
                "onnx.load_from_string makes a ModelProto from bytes"
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
                raise DocumentError(f"{path} is not a regular file; give the path of an ONNX file")
            if status.st_size > MOST_BYTES:
                raise DocumentError(
                    f"{path} has {status.st_size} bytes; at most {MOST_BYTES} are read"
                )
            start = file.read(1)
            if start and start[0] < 8:  # refuses a large file of zeros without reading it
                raise DocumentError(
                    f"{path} is no ONNX model, because it starts with byte {start[0]}"
                )
            return start + file.read(status.st_size - 1)
    except (OSError, ValueError) as error:
        raise DocumentError(f"cannot read {path}: {error}") from error


_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
"""Opens a named pipe without waiting for a writer, so that it is refused at once."""


def _opset(model: Any, name: str) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS]
    if len(versions) != 1:
        raise DocumentError(
            f"{name} must name one version of ONNX's operators, found {versions[:8]}"
        )
    if versions[0] not in OPSETS:
        raise DocumentError(
            f"{name} uses operator set {versions[0]}, but {OPSETS[0]} to {OPSETS[-1]} are "
            "supported; convert it with onnx.version_converter"
        )
    return versions[0]


def _check_model(model: Any, name: str) -> None:
    graph = model.graph
    if model.functions:
        raise DocumentError(
            f"{name} has functions of its own, which are not supported; inline them with "
            "onnx.inliner.inline_local_functions"
        )
    if graph.sparse_initializer:
        raise DocumentError(f"{name} has sparse tensors; export it with dense ones")
    if len(graph.node) > MOST_NODES:
        raise DocumentError(f"{name} has {len(graph.node)} nodes; at most {MOST_NODES} are read")
    if not graph.input or not graph.output:
        raise DocumentError(f"the graph of {name} must have an input and an output")
    constants = [tensor.name for tensor in graph.initializer]
    initialized = set(constants)
    inputs = [value.name for value in graph.input if value.name not in initialized]
    # An empty name stands for an optional output that is absent.
    computed = [output for node in graph.node for output in node.output if output]
    _check_names([*constants, *inputs, *computed], name)
    _check_order(graph, {*constants, *inputs}, name)


def _check_names(names: list[str], where: str) -> None:
    seen = set()
    for name in names:
        if not name or len(name) > MOST_NAME_LENGTH:
            raise DocumentError(
                f"{where}: a tensor is named {shortened(name)!r}; a name must have 1 to "
                f"{MOST_NAME_LENGTH} characters"
            )
        if name in seen:
            raise DocumentError(f"{where}: two tensors are named {shortened(name)!r}")
        seen.add(name)


def _check_order(graph: Any, known: set[str], where: str) -> None:
    """Refuses nodes that read tensors of later nodes, so that there are no cycles."""
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
                f"{who} reads {shortened(name)!r}, which nothing before it computes; the nodes are "
                "out of order, or form a cycle"
            )


def describe(node: Any) -> str:
    """Returns the name and the operator of a node for errors."""
    name = node.name or next((output for output in node.output if output), "")
    domain = "" if node.domain in OWN_DOMAINS else f"{node.domain}."
    return f"node {shortened(name)!r} ({shortened(domain + node.op_type)})"
