"""The report of a simulation of the reference design."""

from typing import Literal

from photomask.chip.forms.conformance.examination import ConformanceResult
from photomask.documents import Document
from photomask.report import Shown, Table


class Mismatch(Document):
    """An integer that the RTL computed differently from the oracle."""

    sample: int
    step: str
    source: str
    """The file and line of the model's code."""
    tile: str
    """The part of the step that the integer belongs to."""
    coordinate: tuple[int, ...]
    """The index of the integer in the edge's own axes."""
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
    """The results of one step on the reference design."""

    step: str
    operator: str
    passes: int
    """The number of descriptors that the design ran; 0 for a constant."""
    integers: int
    """The number of integers that were compared, over all samples."""
    mismatches: int
    rtl_cycles: int
    """The cycles that the RTL counted for one sample."""
    model_cycles: int
    """The cycles by the cycle formula."""


class SimulationReport(Shown, Document):
    """The results of a simulation: what the RTL computed, compared with every golden edge."""

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
    """The cycles of all steps of one sample."""
    model_cycles: int
    conformance: ConformanceResult | None = None
    """What the conformance vectors show about the design; None if the program never rescales."""
    changed_files: tuple[str, ...] = ()
    """The files of the export that have changed since it was written, such as a replaced array."""

    @property
    def passed(self) -> bool:
        """Whether every integer of the network and of the conformance vectors is right."""
        wrong = self.conformance is not None and self.conformance.wrong
        return self.mismatches == 0 and not wrong

    @property
    def rounding_proven(self) -> bool:
        """Whether the rounding is proven, or needs no proof.

        It is proven if the results of all conformance vectors are present and right.
        """
        return self.conformance is None or self.conformance.state == "proven"

    def shown(self) -> Table:
        """Returns a row for each step, then the totals, the first mismatch and the rounding."""
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
        changed = (
            (f"changed since the export: {', '.join(self.changed_files)}")
            if self.changed_files
            else ""
        )
        proven = [str(self.conformance)] if self.conformance is not None else []
        return Table(changed, rows, [total, *first, *proven])
