"""What `design.json` of an RTL export holds: parameters, memory map and steps."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from photomask.chip.hardware.accelerator import Accelerator
from photomask.chip.hardware.images import MULTIPLIER_BITS
from photomask.chip.hardware.memory_map import Place
from photomask.documents import Document, read_text

DESIGN_FILE = "design.json"


class DesignParameters(Document):
    """The parameters that the RTL is built with; names in capitals there."""

    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    lanes: int = Field(ge=1)
    weight_bits: int
    activation_bits: int
    accumulator_bits: int
    multiplier_bits: int = Field(ge=1, le=MULTIPLIER_BITS)
    activation_depth: int
    accumulator_depth: int
    weight_depth: int
    parameter_depth: int
    table_depth: int
    descriptor_depth: int
    steps: int

    def hold(self, other: "DesignParameters") -> bool:
        """Tells whether a design with these parameters runs a program that needs the other ones."""
        sizes = ("multiplier_bits", "steps")
        return all(
            value >= getattr(other, name)
            if name.endswith("_depth") or name in sizes
            else value == getattr(other, name)
            for name, value in self.model_dump().items()
        )


class RtlStep(Document):
    """A step, what it takes, and where its output lies when it is done."""

    number: int
    name: str
    operator: str
    source: str
    edge: str
    shape: tuple[int, ...]
    place: Place
    passes: int
    """0 for a constant, which lies in a memory from the start."""
    cycles: int
    """By the cycle formula."""

    @model_validator(mode="after")
    def _fills_its_place(self) -> Self:
        self.place.check_shape(self.shape)
        return self


class RtlEdge(Document):
    """An input of the program and where it lies at first."""

    edge: str
    shape: tuple[int, ...]
    place: Place

    @model_validator(mode="after")
    def _fills_its_place(self) -> Self:
        self.place.check_shape(self.shape)
        return self


class RtlDesign(Document):
    """What an RTL export holds. Steps are in the order of computation."""

    schema_version: Literal[1] = 1
    kind: Literal["photomask rtl export"] = "photomask rtl export"
    photomask_version: str
    program_sha256: str
    accelerator: Accelerator
    parameters: DesignParameters
    samples: int = Field(ge=1)
    inputs: tuple[RtlEdge, ...]
    outputs: tuple[str, ...]
    steps: tuple[RtlStep, ...]

    @classmethod
    def load(cls, folder: Path) -> "RtlDesign":
        """Reads `design.json` of an export.

        Raises:
            DocumentError: missing, truncated or of another schema.
        """
        path = folder / DESIGN_FILE
        return cls.parse(read_text(path), str(path))
