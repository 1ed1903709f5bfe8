"""What a simulation of the reference design found."""

from typing import Literal

from photomask.chip.forms.conformance.examination import ConformanceResult
from photomask.documents import Document
from photomask.report import Shown, Table


class Mismatch(Document):
    """An integer that the RTL computed differently from the oracle."""

    sample: int
    step: str
    source: str
    """File and line of the model's code."""
    tile: str
    """Which part of the step the integer belongs to."""
    coordinate: tuple[int, ...]
    """In the edge's own axes."""
    memory: str
    address: int
    lane: int
    expected: int
    got: int

    def __str__(self) -> str:
        where = ", ".join(map(str, self.coordinate))
        return (
            f"sample {self.sample}, step {self.step!r} ({self.source}), {self.tile}: element "
            f"[{where}] in lane {self.lane} of word {self.address} of the {self.memory} memory is "
            f"{self.got}, expected {self.expected}"
        )


class LayerSimulation(Document):
    """One step on the reference design."""

    step: str
    operator: str
    passes: int
    """Descriptors that the design ran; 0 for a constant."""
    integers: int
    """Compared, over all samples."""
    mismatches: int
    rtl_cycles: int
    """Counted by the RTL for one sample."""
    model_cycles: int
    """By the cycle formula."""


class SimulationReport(Shown, Document):
    """Every golden edge of an export beside what the RTL computed."""

    schema_version: Literal[2] = 2
    simulator: str
    accelerator: str
    program_sha256: str
    samples: int
    layers: tuple[LayerSimulation, ...]
    first_mismatch: Mismatch | None
    integers: int
    mismatches: int
    rtl_cycles: int
    """Of all steps of one sample."""
    model_cycles: int
    conformance: ConformanceResult | None = None
    """What the design made of the conformance vectors. None: the program rescales nothing."""
    changed_files: tuple[str, ...] = ()
    """Files of the export that are not as they were written: another array, for example."""

    @property
    def passed(self) -> bool:
        """Whether every integer is right, of the network and of the conformance vectors."""
        wrong = self.conformance is not None and self.conformance.wrong
        return self.mismatches == 0 and not wrong

    @property
    def rounding_proven(self) -> bool:
        """Whether the results of all conformance vectors are there and right."""
        return self.conformance is None or self.conformance.state == "proven"

    def shown(self) -> Table:
        """Returns a row for each step, and the sums."""
        rows = [("step", "operator", "passes", "integers", "wrong", "RTL cycles", "formula")]
        rows += [
            (
                layer.step,
                layer.operator,
                str(layer.passes),
                str(layer.integers),
                str(layer.mismatches),
                str(layer.rtl_cycles),
                str(layer.model_cycles),
            )
            for layer in self.layers
        ]
        total = (
            f"{self.mismatches} of {self.integers} integers differ; {self.rtl_cycles} cycles, "
            f"{self.model_cycles} by the formula"
        )
        first = [f"first: {self.first_mismatch}"] if self.first_mismatch else []
        changed = f"not as exported: {', '.join(self.changed_files)}" if self.changed_files else ""
        proven = [str(self.conformance)] if self.conformance is not None else []
        return Table(changed, rows, [total, *first, *proven])
