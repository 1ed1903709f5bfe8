"""Simulates an RTL export: every tile runs through the array, and every golden edge is compared."""

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER
from photomask.chip.forms.rtl.conformance import (
    conformance_design,
    examine_conformance,
    without_vectors,
)
from photomask.chip.forms.rtl.design import RtlDesign, RtlStep
from photomask.chip.forms.rtl.files import (
    COCOTB_FILE,
    GOLDEN_FOLDER,
    INPUTS_FOLDER,
    PROGRAM_FOLDER,
    RTL_FOLDER,
    changed_files,
)
from photomask.chip.forms.rtl.outputs import read_cycles, read_edge
from photomask.chip.forms.rtl.simulation_report import (
    LayerSimulation,
    Mismatch,
    SimulationReport,
)
from photomask.chip.forms.rtl.simulator import Simulator, build, execute, verilator_command
from photomask.errors import DocumentError, EngineError, MissingDependencyError
from photomask.stages import stage

WRONG_INTEGERS = 2
"""The exit status of the cocotb test if it found wrong integers."""


@stage(__name__, "simulate")
def simulate(
    folder: str | Path,
    *,
    engine: Literal["verilator", "cocotb"] = "verilator",
    simulator: Simulator | None = None,
) -> SimulationReport:
    """Runs an RTL export and compares every step's output with the oracle's.

    The design also runs the conformance vectors. They show faults of its rescaling that the
    network's data do not reveal, and the report names the fault. The report also lists files of the
    export that have changed. If a file has changed that the design would be compared with, nothing
    is simulated.

    Args:
        folder: the folder that `RtlForm` wrote. Its subfolder `rtl` may hold another array.
        engine: "cocotb" runs the export's own cocotb test on Verilator, which takes longer.
        simulator: a Verilator design that was built before and can hold the program; None builds
            the design in the folder.

    Raises:
        MissingDependencyError: the package `verilator` or `cocotb` is not installed.
        EngineError: a tool is missing, the build failed, or the design never finished.
        DocumentError: a file of the export is missing or altered.
    """
    folder = Path(folder).resolve()
    design = RtlDesign.load(folder)
    changed = changed_files(folder, design)
    vectors = conformance_design(folder)
    with tempfile.TemporaryDirectory(prefix="photomask-rtl-") as name:
        work = Path(name)
        if engine == "cocotb":
            _run_cocotb(folder, work)
        else:
            _run_verilator(folder, design, vectors, work, simulator)
        outputs = [work / str(sample) for sample in range(design.samples)]
        report = compare_outputs(folder, design, outputs, engine)
        proven = (
            without_vectors(design)
            if vectors is None
            else examine_conformance(folder, vectors, work / CONFORMANCE_FOLDER)
        )
        return report.model_copy(update={"conformance": proven, "changed_files": changed})


def _run_verilator(
    folder: Path,
    design: RtlDesign,
    vectors: RtlDesign | None,
    work: Path,
    simulator: Simulator | None,
) -> None:
    """Builds the design if none was given, and runs every sample and the conformance vectors."""
    if simulator is None:
        simulator = build(sources_in(folder / RTL_FOLDER), design.parameters, work / "build")
    elif not simulator.parameters.hold(design.parameters):
        raise EngineError(
            f"the simulator was built with {simulator.parameters}, but the program needs "
            f"{design.parameters}; build it again"
        )
    for sample in range(design.samples):
        output = work / str(sample)
        output.mkdir()
        inputs = folder / INPUTS_FOLDER / str(sample)
        simulator.run(folder / PROGRAM_FOLDER, inputs, output, design.limit)
    if vectors is not None:
        place, output = folder / CONFORMANCE_FOLDER, work / CONFORMANCE_FOLDER
        output.mkdir()
        inputs = place / INPUTS_FOLDER / "0"
        simulator.run(place / PROGRAM_FOLDER, inputs, output, vectors.limit)


def _run_cocotb(folder: Path, work: Path) -> None:
    """Runs the cocotb test of an export; wrong integers are left for the comparison to report."""
    if importlib.util.find_spec("cocotb") is None:
        raise MissingDependencyError("cocotb", "rtl", "simulating the RTL with cocotb")
    verilator_command()
    command = [sys.executable, str(folder / COCOTB_FILE), str(work)]
    execute(command, "the cocotb test", {}, accepted=(0, WRONG_INTEGERS))


def sources_in(folder: Path) -> list[Path]:
    """Returns the SystemVerilog files of a folder, with packages first.

    Raises:
        DocumentError: there are no such files.
    """
    sources = sorted(folder.glob("*.sv"), key=lambda p: (not p.stem.endswith("_package"), p.name))
    if not sources:
        raise DocumentError(f"{folder} holds no SystemVerilog files; export the program again")
    return sources


def compare_outputs(
    folder: Path, design: RtlDesign, outputs: list[Path], engine: str
) -> SimulationReport:
    """Compares what the RTL wrote with an export's golden vectors.

    Args:
        folder: the export.
        design: the content of its `design.json`.
        outputs: for each sample the folder that the testbench wrote to.
        engine: the name of the engine that ran the design.

    Raises:
        EngineError: the design never finished.
        DocumentError: a file is missing or holds no words.
    """
    counts = [read_cycles(output, design) for output in outputs]
    cycles = counts[0]
    layers, first = [], None
    for step in design.steps:
        wrong = integers = 0
        for sample, output in enumerate(outputs if step.passes else []):
            name = f"step_{step.number}.hex"
            expected = read_edge(folder / GOLDEN_FOLDER / str(sample) / name, step)
            got = read_edge(output / name, step)
            different = np.argwhere(expected != got)
            if len(different) and first is None:
                first = _mismatch(sample, step, tuple(different[0].tolist()), expected, got)
            wrong, integers = wrong + len(different), integers + expected.size
        layers.append(
            LayerSimulation(
                step=step.name,
                operator=step.operator,
                passes=step.passes,
                integers=integers,
                mismatches=wrong,
                rtl_cycles=cycles.get(step.number, 0),
                model_cycles=step.cycles,
            )
        )
    return SimulationReport(
        simulator=engine,
        accelerator=design.accelerator.name,
        program_sha256=design.program_sha256,
        samples=design.samples,
        layers=tuple(layers),
        first_mismatch=first,
        integers=sum(layer.integers for layer in layers),
        mismatches=sum(layer.mismatches for layer in layers),
        rtl_cycles=sum(layer.rtl_cycles for layer in layers),
        model_cycles=sum(layer.model_cycles for layer in layers),
    )


def _mismatch(
    sample: int, step: RtlStep, at: tuple[int, ...], expected: np.ndarray, got: np.ndarray
) -> Mismatch:
    place = step.place
    element = np.array(int(np.ravel_multi_index(at, step.shape)))
    word, lane = (int(number) for number in place.locate(element))
    block = (word - place.address) // place.positions * place.lanes
    return Mismatch(
        sample=sample,
        step=step.name,
        source=step.source,
        tile=f"channels {block} to {min(block + place.lanes, place.channels) - 1}",
        coordinate=at,
        memory=place.memory,
        address=word,
        lane=lane,
        expected=int(expected[at]),
        got=int(got[at]),
    )
