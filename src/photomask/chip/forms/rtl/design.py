"""The content of `design.json` in an RTL export: parameters, memory map, steps and files."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.forms.file_records import FileRecord
from photomask.chip.forms.rtl.images import MULTIPLIER_BITS
from photomask.chip.forms.rtl.memory_map import Place
from photomask.documents import Document, SealedDocument, read_text

DESIGN_FILE = "design.json"
PATIENCE = 4
"""A simulation is given up after this many times the cycles of the formula."""


_PATTERN = ("kept", "group")


class DesignParameters(Document):
    """The parameters that the RTL is built with. In the RTL their names are in capitals."""

    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    lanes: int = Field(ge=1)
    weight_bits: int
    activation_bits: int
    accumulator_bits: int
    multiplier_bits: int = Field(ge=1, le=MULTIPLIER_BITS)
    kept: int = Field(ge=1, default=1)
    """The rows that read a group of inputs together: N of the pattern N:M, and 1 if dense."""
    group: int = Field(ge=1, default=1)
    """The inputs of such a group: M of the pattern N:M, and 1 if dense."""
    activation_depth: int
    accumulator_depth: int
    weight_depth: int
    parameter_depth: int
    table_depth: int
    descriptor_depth: int
    steps: int

    @model_serializer(mode="wrap")
    def _without_absent_pattern(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves the pattern of a dense array out: exports of older versions do not know it."""
        body = dump(self)
        return body if self.group > 1 else {n: x for n, x in body.items() if n not in _PATTERN}

    def joined(self, other: "DesignParameters") -> Self:
        """Returns the parameters of the smallest design that runs the programs of both."""
        names = type(self).model_fields
        largest = {name: max(getattr(self, name), getattr(other, name)) for name in names}
        return self.model_copy(update=largest)

    def hold(self, other: "DesignParameters") -> bool:
        """Tells whether a design with these parameters can run a program that needs `other`."""
        sizes = ("multiplier_bits", "steps")
        return all(
            getattr(self, name) >= getattr(other, name)
            if name.endswith("_depth") or name in sizes
            else getattr(self, name) == getattr(other, name)
            for name in type(self).model_fields
        )


class RtlStep(Document):
    """A step, the cycles that it takes, and the place of its output when it is complete."""

    number: int
    name: str
    operator: str
    source: str
    edge: str
    shape: tuple[int, ...]
    place: Place
    passes: int
    """The number of descriptors; 0 for a constant, which is in memory from the start."""
    cycles: int
    """The number of cycles by the cycle formula."""

    @model_validator(mode="after")
    def _fills_its_place(self) -> Self:
        self.place.check_shape(self.shape)
        return self


class RtlEdge(Document):
    """An input of the program, and its place in memory before the first step."""

    edge: str
    shape: tuple[int, ...]
    place: Place

    @model_validator(mode="after")
    def _fills_its_place(self) -> Self:
        self.place.check_shape(self.shape)
        return self


class RtlDesign(SealedDocument):
    """The content of an RTL export, with the steps in the order of computation.

    Version 1, which can still be read, has no hashes.
    """

    schema_version: Literal[1, 2] = 2
    kind: Literal["photomask rtl export"] = "photomask rtl export"
    photomask_version: str
    program_sha256: str
    accelerator: Accelerator
    parameters: DesignParameters
    samples: int = Field(ge=1)
    inputs: tuple[RtlEdge, ...]
    outputs: tuple[str, ...]
    steps: tuple[RtlStep, ...]
    files: tuple[FileRecord, ...] = ()
    """The records of all other files of the export."""

    @model_serializer(mode="wrap")
    def _of_its_version(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body = dump(self)
        if self.schema_version == 1:
            del body["files"], body["content_sha256"]
        return body

    @property
    def limit(self) -> int:
        """The number of cycles of one sample after which a simulation is given up."""
        return PATIENCE * sum(step.cycles for step in self.steps) + 1000

    def computed_sha256(self) -> str:
        """Returns the hash that `content_sha256` should hold; version 1 has none."""
        return super().computed_sha256() if self.schema_version > 1 else ""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads `design.json` of an export and checks its own hash.

        Raises:
            DocumentError: the file is missing, truncated, altered or has another schema.
        """
        path = folder / DESIGN_FILE
        return cls.parse(read_text(path), str(path))
