"""A program as a graph of Model Explorer's."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from photomask.arrays import read_tensors
from photomask.chip.program.document import Edge, ProgramDocument, Step
from photomask.chip.program.program import PROGRAM_FILE, TENSOR_FILE
from photomask.dependencies import OptionalPackage
from photomask.documents import read_text
from photomask.errors import DocumentError

if TYPE_CHECKING:
    from model_explorer.graph_builder import Graph, GraphNode, KeyValue, MetadataItem

GRAPH = "program"
"""Name of the graph; files of node data refer to it."""


def input_id(edge: str) -> str:
    """Returns the identity of an input's node; that of a step's node is the step's name."""
    return f"input {edge}"


def graph_of(path: str | Path) -> "Graph":
    """Reads a program and returns it as a graph.

    Layers are nested as the modules of the float model are: the step `blocks.0.add` lies in `0`,
    which lies in `blocks`.

    Args:
        path: of a `program.json`.

    Raises:
        DocumentError: the file is no program, or its constants are damaged.
        MissingDependencyError: Model Explorer is not installed.
    """
    path = Path(path)
    try:
        document = ProgramDocument.parse(read_text(path), str(path))
    except DocumentError as error:
        raise DocumentError(
            f"{error}. This adapter opens the {PROGRAM_FILE} of an export; choose the adapter of "
            "Model Explorer for other JSON files"
        ) from error
    shapes = {name: record.shape for name, record in document.tensors.items()}
    beside = path.with_name(TENSOR_FILE)
    tensors = read_tensors(beside, shapes) if beside.is_file() else {}
    return _Graphs(document, tensors).graph()


class _Graphs:
    """Builds the graph of one program."""

    def __init__(self, document: ProgramDocument, tensors: Mapping[str, np.ndarray]):
        with OptionalPackage("ai-edge-model-explorer", "model-explorer", "Model Explorer's graphs"):
            from model_explorer import graph_builder
        self.builder = graph_builder
        self.document = document
        self.tensors = tensors
        self.edges = {edge.name: edge for edge in document.edges}
        self.makers = {name: input_id(name) for name in document.inputs}
        self.makers |= {step.output: step.name for step in document.steps}

    def graph(self) -> "Graph":
        """Returns the inputs and all steps."""
        target = self.document.target
        attributes = {
            "target": target.name,
            "steps": str(len(self.document.steps)),
            "accumulator bits": str(target.accumulator_bits),
            "multiplier bits": str(target.multiplier_bits),
            "rounding": str(target.rounding),
            "hash": self.document.content_sha256,
        }
        return self.builder.Graph(
            id=GRAPH,
            nodes=[
                *(self._input(name) for name in self.document.inputs),
                *(self._step(step) for step in self.document.steps),
            ],
            groupNodeAttributes={"": attributes},
        )

    def _input(self, name: str) -> "GraphNode":
        edge = self.edges[name]
        return self.builder.GraphNode(
            id=input_id(name), label=name, outputsMetadata=[self._metadata("0", edge)]
        )

    def _step(self, step: Step) -> "GraphNode":
        attributes = {
            "step": step.name,
            "model node": step.node,
            "source": step.source,
            **{
                name: str(value)
                for name, value in step.operator.model_dump(mode="json", exclude={"kind"}).items()
            },
            **{role: self._constant(name) for role, name in step.tensors.items()},
        }
        if step.output in self.document.outputs:
            attributes["output of the program"] = step.output
        return self.builder.GraphNode(
            id=step.name,
            label=step.operator.kind,
            namespace="/".join(step.node.split(".")),
            attrs=self._pairs(attributes),
            incomingEdges=[
                self.builder.IncomingEdge(
                    sourceNodeId=self.makers[name],
                    sourceNodeOutputId="0",
                    targetNodeInputId=str(place),
                )
                for place, name in enumerate(step.inputs)
            ],
            inputsMetadata=[
                self._metadata(str(place), self.edges[name])
                for place, name in enumerate(step.inputs)
            ],
            outputsMetadata=[self._metadata("0", self.edges[step.output])],
        )

    def _constant(self, name: str) -> str:
        """Returns format and shape of a constant and, where its values are at hand, their ends."""
        record = self.document.tensors[name]
        text = f"{record.format} {list(record.shape)}"
        tensor = self.tensors.get(name)
        return text if tensor is None or not tensor.size else f"{text}, {_ends(tensor)}"

    def _metadata(self, place: str, edge: Edge) -> "MetadataItem":
        scale = np.array(edge.scale)
        facts = {
            "tensor_name": edge.name,
            "tensor_shape": f"{edge.format}{list(edge.shape)}",
            "values": f"{edge.low} to {edge.high}",
            "scale": _ends(scale),
            "zero point": str(edge.zero_point),
            "role": edge.role,
        }
        return self.builder.MetadataItem(id=place, attrs=self._pairs(facts))

    def _pairs(self, facts: Mapping[str, str]) -> list["KeyValue"]:
        return [self.builder.KeyValue(key=key, value=value) for key, value in facts.items()]


def _ends(values: np.ndarray) -> str:
    """Returns one number, or the ends of several."""
    low, high = (_number(end) for end in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _number(value: np.number) -> str:
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)
