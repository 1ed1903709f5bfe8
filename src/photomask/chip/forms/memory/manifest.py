"""The manifest of an export: what each file holds, and the graph that the files belong to."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

import photomask
from photomask.chip.formats import IntFormat
from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER, VECTORS_FILE
from photomask.chip.forms.file_records import FileRecord
from photomask.chip.forms.memory.compressed import (
    WEIGHT,
    CompressedWeight,
    chosen_storages,
    compressed_weight,
    weight_of_step,
)
from photomask.chip.forms.memory.element_order import ElementOrder, edge_orders, tensor_order
from photomask.chip.forms.memory.file_names import safe_names
from photomask.chip.forms.memory.image import Encoding
from photomask.chip.operators import Requantize
from photomask.chip.packing import Packing
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.chip.program.program import PROGRAM_FILE, TENSOR_FILE
from photomask.chip.target import Target
from photomask.documents import Document, read_text
from photomask.errors import DocumentError

MANIFEST_FILE = "manifest.json"
README_FILE = "README.md"
MEMORY_FOLDER = "memory"
GOLDEN_FOLDER = "golden"
DOCUMENT_FILES = (README_FILE, PROGRAM_FILE, TENSOR_FILE)
CONFORMANCE_FILES = tuple(f"{CONFORMANCE_FOLDER}/{name}" for name in (VECTORS_FILE, MANIFEST_FILE))


class ImageRecord(FileRecord):
    """A file of integers and how to read it."""

    encoding: Encoding
    format: IntFormat
    shape: tuple[int, ...]
    """The shape of the tensor, in its own axes."""
    layout: str
    """The letters of the axes from the slowest to the fastest, or "row_major"."""
    axes: tuple[int, ...]
    """The numbers of the tensor's own axes, from the slowest to the fastest in the file (hex, bin,
    dec).
    """
    elements: int
    lanes: int | None
    """How many elements share a word (hex, bin)."""
    words_per_element: int | None
    """How many words one element takes (hex, bin)."""
    words: int | None
    """How many words the file holds: its lines without the comment (hex, bin)."""

    @model_validator(mode="after")
    def _has_one_shape(self) -> Self:
        if sorted(self.axes) != [*range(len(self.shape))]:
            raise ValueError(f"the axes {self.axes} are not the axes of the shape {self.shape}")
        if min(self.shape, default=1) < 0 or math.prod(self.shape) != self.elements:
            raise ValueError(f"the shape {self.shape} does not have {self.elements:,} elements")
        return self

    @property
    def order(self) -> ElementOrder:
        """The memory order of the elements."""
        return ElementOrder(self.layout, self.axes)


class TensorImage(ImageRecord):
    """The image of a constant tensor, as one step reads it."""

    step: str
    role: str
    """What the tensor is for the operator: weight, bias, multiplier, shift, table, index, …"""
    tensor: str
    node: str


class GoldenImage(ImageRecord):
    """The image of one edge's integers for one sample."""

    sample: int
    edge: str
    role: Literal["input", "accumulator", "activation"]
    step: str | None
    """The step that computes the edge; None for an input of the model."""
    node: str | None


class WordDescription(Document):
    """The layout of all packed files in plain words; the numbers are in the record of each file."""

    word_bits: int
    first_lane: Literal["least_significant", "most_significant"]
    negative_integers: Literal["two's complement"] = "two's complement"
    lanes: Literal["word_bits // bits, at least 1"] = "word_bits // bits, at least 1"
    unused_bits: Literal["zero"] = "zero"
    last_word: Literal["filled up with zeros"] = "filled up with zeros"
    wide_elements: Literal["several words, least significant first"] = (
        "several words, least significant first"
    )


class Manifest(Document):
    """The content of `manifest.json`, with steps and edges in the order of computation.

    Versions 1 and 2 can still be read. They have no fields `compression` and `compressed`, and
    version 1 has no field `conformance`.
    """

    schema_version: Literal[1, 2, 3] = 3
    kind: Literal["photomask export"] = "photomask export"
    photomask_version: str
    program_sha256: str
    """The content hash of the program."""
    target: Target
    words: WordDescription
    encodings: tuple[Encoding, ...]
    samples: int = Field(ge=1)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    edges: tuple[Edge, ...]
    steps: tuple[Step, ...]
    documents: tuple[FileRecord, ...]
    memory: tuple[TensorImage, ...]
    golden: tuple[GoldenImage, ...]
    conformance: tuple[FileRecord, ...] = ()
    """The records of the conformance vectors, and of the manifest of the program that computes
    them.
    """
    compression: tuple[str, ...] = ()
    """The storages that weights could be compressed to."""
    compressed: tuple[CompressedWeight, ...] = ()
    """The weights that have no image in `memory`, because they are stored without their zeros."""
    content_sha256: str
    """The SHA-256 of this document as JSON without spaces, with sorted keys, and with this field
    empty.
    """

    @model_serializer(mode="wrap")
    def _of_its_version(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body = dump(self)
        if self.schema_version < 3:
            del body["compression"], body["compressed"]
        if self.schema_version == 1:
            del body["conformance"]
        return body

    @property
    def rescales(self) -> bool:
        """Whether a step of the program is a requantization."""
        return any(isinstance(step.operator, Requantize) for step in self.steps)

    def sealed(self) -> Self:
        """Returns the manifest with its content hash."""
        return self.model_copy(update={"content_sha256": self.computed_sha256()})

    def computed_sha256(self) -> str:
        """Returns the hash that `content_sha256` should hold."""
        body = self.model_dump(mode="json") | {"content_sha256": ""}
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def files(self) -> tuple[FileRecord, ...]:
        """Returns the records of all files of the export except the manifest."""
        streams = (stream for weight in self.compressed for stream in weight.streams)
        return (*self.documents, *self.memory, *streams, *self.golden, *self.conformance)

    def packing(self, record: ImageRecord) -> Packing:
        """Returns how the elements of a file are packed into words."""
        return Packing.of(record.format, self.target)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads the manifest of an export and checks its own hash.

        Raises:
            DocumentError: the manifest is missing, truncated, altered or has another schema.
        """
        path = folder / MANIFEST_FILE
        text = read_text(path)
        manifest = cls.parse(text, str(path))
        if manifest.computed_sha256() != manifest.content_sha256 or manifest.render() != text:
            raise DocumentError(
                f"{path} was altered, because its content hash does not match; export the program "
                "again"
            )
        return manifest


def describe(
    program: IntegerProgram,
    encodings: tuple[Encoding, ...],
    samples: int,
    *,
    compression: Sequence[str] = (),
    with_conformance: bool = True,
) -> Manifest:
    """Returns the manifest of an export of a program, with empty hashes and file sizes.

    Args:
        program: the program that is exported.
        encodings: the encodings that each tensor is written in.
        samples: the number of golden samples.
        compression: the storages that weights may be compressed to.
        with_conformance: False for the conformance program, which has no vectors of its own.
    """
    dense, compressed = _tensor_images(program, encodings, compression)
    draft = Manifest(
        photomask_version=photomask.__version__,
        program_sha256=program.content_hash(),
        target=program.target,
        words=WordDescription(
            word_bits=program.target.memory_word_bits, first_lane=program.target.first_lane
        ),
        encodings=encodings,
        samples=samples,
        inputs=program.inputs,
        outputs=program.outputs,
        edges=tuple(program.edges.values()),
        steps=program.steps,
        documents=tuple(FileRecord(path=name) for name in DOCUMENT_FILES),
        memory=tuple(dense),
        golden=tuple(_golden_images(program, encodings, samples)),
        compression=tuple(compression),
        compressed=tuple(compressed),
        content_sha256="",
    )
    if not (with_conformance and draft.rescales):
        return draft
    files = tuple(FileRecord(path=name) for name in CONFORMANCE_FILES)
    return draft.model_copy(update={"conformance": files})


def _tensor_images(
    program: IntegerProgram, encodings: tuple[Encoding, ...], compression: Sequence[str]
) -> tuple[list[TensorImage], list[CompressedWeight]]:
    """Describes the images of all steps, and the weights that are compressed instead.

    Steps that read a tensor in the same order share one file.
    """
    folders = safe_names([step.name for step in program.steps])
    storages = chosen_storages(program, compression)
    stems: dict[tuple[str, ElementOrder | str | None], str] = {}
    images: list[TensorImage] = []
    compressed: list[CompressedWeight] = []
    for step, folder in zip(program.steps, folders, strict=True):
        weight = weight_of_step(step)
        storage = storages.get(weight) if weight is not None else None
        if weight is not None and storage is not None:
            stem = stems.setdefault(weight, f"{MEMORY_FOLDER}/{folder}/{WEIGHT}")
            compressed.append(compressed_weight(program, step, storage, stem, encodings))
        for role, tensor in step.tensors.items():
            if role == WEIGHT and storage is not None:
                continue
            order = tensor_order(program, step, role)
            stem = stems.setdefault((tensor, order), f"{MEMORY_FOLDER}/{folder}/{role}")
            shape, format = program.tensors[tensor].shape, program.formats[tensor]
            images += [
                TensorImage(
                    path=f"{stem}.{encoding}",
                    step=step.name,
                    role=role,
                    tensor=tensor,
                    node=step.node,
                    **_image_fields(program.target, format, shape, order, encoding),
                )
                for encoding in encodings
            ]
    return images, compressed


def _golden_images(
    program: IntegerProgram, encodings: tuple[Encoding, ...], samples: int
) -> list[GoldenImage]:
    stems = safe_names(list(program.edges))
    orders = edge_orders(program)
    makers = program.links.makers
    return [
        GoldenImage(
            path=f"{GOLDEN_FOLDER}/{sample}/{stem}.{encoding}",
            sample=sample,
            edge=edge.name,
            role=edge.role,
            step=makers[edge.name].name if edge.name in makers else None,
            node=makers[edge.name].node if edge.name in makers else None,
            **_image_fields(program.target, edge.format, edge.shape, orders[edge.name], encoding),
        )
        for sample in range(samples)
        for edge, stem in zip(program.edges.values(), stems, strict=True)
        for encoding in encodings
    ]


def _image_fields(
    target: Target,
    format: IntFormat,
    shape: tuple[int, ...],
    order: ElementOrder,
    encoding: Encoding,
) -> dict:
    elements = 1
    for size in shape:
        elements *= size
    packing = Packing.of(format, target)
    return {
        "encoding": encoding,
        "format": format,
        "shape": shape,
        "layout": order.name,
        "axes": order.axes,
        "elements": elements,
        "lanes": packing.lanes if encoding.packed else None,
        "words_per_element": packing.words_per_element if encoding.packed else None,
        "words": packing.words(elements) if encoding.packed else None,
    }
