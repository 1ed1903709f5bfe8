"""The conformance vectors of an RTL export: a second program that the same design runs."""

from pathlib import Path

import numpy as np

from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER, ConformanceVectors
from photomask.chip.forms.conformance.examination import Computed, ConformanceResult, examine
from photomask.chip.forms.rtl.design import RtlDesign
from photomask.chip.forms.rtl.outputs import read_cycles, read_edge


def conformance_design(folder: Path) -> RtlDesign | None:
    """Returns the design document of an export's conformance program, or None if it has none.

    Raises:
        DocumentError: the document is truncated, altered or has another schema.
    """
    place = folder / CONFORMANCE_FOLDER
    return RtlDesign.load(place) if place.is_dir() else None


def examine_conformance(folder: Path, design: RtlDesign, output: Path) -> ConformanceResult:
    """Compares the results of the RTL with the conformance vectors, and names the design's fault.

    Args:
        folder: the export.
        design: the design document of its conformance program.
        output: the folder that the testbench wrote to.

    Raises:
        EngineError: the design never finished.
        DocumentError: a file is missing or holds no words.
    """
    read_cycles(output, design)
    computed: dict[str, Computed] = {}
    for step in design.steps:
        values = read_edge(output / f"step_{step.number}.hex", step)[0]
        computed[step.name] = Computed(values, np.ones(values.shape, dtype=bool))
    return examine(ConformanceVectors.load(folder / CONFORMANCE_FOLDER), computed)


def without_vectors(design: RtlDesign) -> ConformanceResult | None:
    """Returns the result for an export without vectors, or None if its program never rescales."""
    if not any(step.operator == "requantize" for step in design.steps):
        return None
    return ConformanceResult.without_vectors()
