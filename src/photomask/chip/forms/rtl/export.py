"""The RTL form: the reference design with a program and its golden vectors, written and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import ClassVar

import numpy as np

import photomask
from photomask.chip.cost.accelerator import Accelerator, load_accelerator
from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER, VECTORS_FILE
from photomask.chip.forms.conformance.vectors import conformance_vectors
from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.golden import golden_edges
from photomask.chip.forms.rtl.context import RTL
from photomask.chip.forms.rtl.cycles import descriptor_cycles
from photomask.chip.forms.rtl.descriptors import TABLE_FILE, Descriptor, render_table
from photomask.chip.forms.rtl.design import (
    DESIGN_FILE,
    DesignParameters,
    RtlDesign,
    RtlEdge,
    RtlStep,
)
from photomask.chip.forms.rtl.files import (
    COCOTB_FILE,
    GOLDEN_FOLDER,
    INPUTS_FOLDER,
    PROGRAM_FOLDER,
    RTL_FOLDER,
    changed_files,
    file_records,
)
from photomask.chip.forms.rtl.images import MULTIPLIER_BITS
from photomask.chip.forms.rtl.listing import LISTING_FILE, render_listing
from photomask.chip.forms.rtl.lowering import (
    LoweredProgram,
    check_accelerator,
    lower,
    lower_steps,
    steps_in_order,
)
from photomask.chip.forms.rtl.memory_map import MEMORIES, Memory, Place, words_to_hex
from photomask.chip.forms.rtl.read_back import wrong_weights
from photomask.chip.forms.rtl.readme import render_makefile, render_readme
from photomask.chip.forms.rtl.simulation import simulate
from photomask.chip.forms.rtl.weight_image import WEIGHTS_FILE, weight_lines
from photomask.chip.forms.writers import Problem
from photomask.chip.operators import Constant, Operator
from photomask.chip.program import IntegerProgram
from photomask.documents import written_whole
from photomask.errors import DataError

README_FILE = "README.md"
MAKE_FILE = "Makefile"
PARAMETER_BITS = 40
"""The bits of a lane of a parameter word, unless the accumulators are wider."""


@dataclass(frozen=True)
class RtlForm:
    """The reference design, with one program and its golden vectors, as a folder.

    The folder's README says how to run it and how to replace the array. The subfolder `conformance`
    holds a second program for the same design, the conformance vectors. They prove that the design
    rescales correctly, whatever the network's data are.

    Attributes:
        accelerator: the rows, columns and widths of the design; the name of a preset, or a JSON
            file.

    Raises:
        TargetError: the design cannot be built as this accelerator.
    """

    name: ClassVar[str] = "rtl"
    title: ClassVar[str] = "the reference design in SystemVerilog and its testbench, for simulation"
    place: ClassVar[str] = "rtl"
    accelerator: Accelerator | str | Path = "reference"

    def __post_init__(self) -> None:
        machine = load_accelerator(self.accelerator)
        check_accelerator(machine)
        object.__setattr__(self, "accelerator", machine)

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns why the design has no unit for an operator, or None if it has one."""
        return RTL.refusal(operator)

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns a problem for every step that does not run on the design."""
        return list(lower_steps(program, self.accelerator)[1].values())

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> RtlDesign:
        """Writes the folder; the same program and samples give the same bytes.

        Args:
            program: the program that the design is to compute.
            place: the folder. An earlier export there is replaced.
            samples: the samples that the golden vectors are made from, at least one.

        Returns:
            The content of `design.json`.

        Raises:
            FormError: names every step that does not run on the design.
            DataError: there are no samples.
            ExportError: the folder holds something else, or a file could not be written to the
                disk.
        """
        if not samples:
            raise DataError(
                "the reference design needs at least one sample for its golden vectors, got none; "
                "pass inputs"
            )
        lowered = lower(program, self.accelerator)
        vectors = conformance_vectors(program, lowered.accelerator.accumulator_bits)
        proof = (
            None if vectors is None else lower(vectors.program(program.target), self.accelerator)
        )
        parameters = design_parameters(lowered)
        if proof is not None:
            parameters = parameters.joined(design_parameters(proof))
        design = describe(lowered, len(samples), parameters)
        proof_design = None if proof is None else describe(proof, 1, parameters)
        with written_whole(place, "RTL export") as staging:
            write_sources(staging / RTL_FOLDER)
            _write_run(lowered, design, samples, staging)
            if vectors is not None and proof is not None and proof_design is not None:
                folder = staging / CONFORMANCE_FOLDER
                folder.mkdir()
                _write_run(proof, proof_design, [vectors.inputs()], folder)
                _write_text(folder / VECTORS_FILE, vectors.render())
                _write_text(folder / DESIGN_FILE, proof_design.sealed().render())
            _write_text(staging / LISTING_FILE, render_listing(lowered))
            limit = 0 if proof_design is None else proof_design.limit
            _write_text(staging / README_FILE, render_readme(design))
            _write_text(staging / MAKE_FILE, render_makefile(design, source_names(), limit))
            _write_text(staging / COCOTB_FILE, _packaged("cocotb_test.py"))
            design = design.model_copy(update={"files": file_records(staging)}).sealed()
            _write_text(staging / DESIGN_FILE, design.render())
        return design

    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        """Simulates the folder with Verilator: the golden vectors, then the conformance vectors.

        Before that, the weights are read back from the descriptors and the weight memory. Nothing
        is simulated if a weight is wrong, if the folder holds another program, or if files of it
        have changed. To simulate an export in which you have replaced the array, use `simulate`.

        Args:
            program: the program that the folder must hold.
            place: the folder.
            samples: not used, because the golden vectors hold their own inputs.

        Raises:
            DocumentError: a file that the design is run with or compared with is missing or
                altered.
            EngineError: a tool is missing, the build failed, or the design never finished.
            MissingDependencyError: the package `verilator` is not installed.
        """
        design = RtlDesign.load(place)
        problems = [
            f"{name}: the file is not as it was exported" for name in changed_files(place, design)
        ]
        if design.program_sha256 != program.content_hash():
            problems.append(
                f"{place} holds another program than the one that was given; export it again"
            )
        if not problems:
            problems += wrong_weights(lower(program, design.accelerator), place)
        if problems:
            return FormCheck(0, 0, tuple(problems))
        report = simulate(place)
        if report.first_mismatch is not None:
            problems.append(str(report.first_mismatch))
        proof = report.conformance
        if proof is None:
            return FormCheck(report.integers, report.mismatches, tuple(problems))
        if not report.rounding_proven:
            problems.append(str(proof))
        return FormCheck(
            report.integers + proof.compared, report.mismatches + proof.wrong, tuple(problems)
        )


def source_names() -> list[str]:
    """Returns the names of the RTL's files, with the package first."""
    rtl = resources.files("photomask.chip.forms.rtl") / "sources"
    names = sorted(entry.name for entry in rtl.iterdir() if entry.name.endswith(".sv"))
    return sorted(names, key=lambda name: not name.endswith("_package.sv"))


def write_sources(folder: Path) -> None:
    """Copies the RTL into a new folder."""
    folder.mkdir(parents=True)
    for name in source_names():
        _write_text(folder / name, _packaged(name))


def _packaged(name: str) -> str:
    return (resources.files("photomask.chip.forms.rtl") / "sources" / name).read_text(
        encoding="utf-8"
    )


def describe(
    lowered: LoweredProgram, samples: int, parameters: DesignParameters | None = None
) -> RtlDesign:
    """Returns the content of `design.json` for a lowered program, without hashes.

    Args:
        lowered: the program.
        samples: the number of golden samples.
        parameters: the parameters of the design; None takes the smallest design that runs the
            program.
    """
    program, machine = lowered.program, lowered.accelerator
    descriptors: dict[int, list[Descriptor]] = {number: [] for number in range(len(program.steps))}
    for number, _, group in steps_in_order(lowered):
        descriptors[number] = group
    return RtlDesign(
        photomask_version=photomask.__version__,
        program_sha256=program.content_hash(),
        accelerator=machine,
        parameters=parameters or design_parameters(lowered),
        samples=samples,
        inputs=tuple(
            RtlEdge(edge=name, shape=program.edges[name].shape, place=lowered.memory.edges[name])
            for name in program.inputs
        ),
        outputs=program.outputs,
        steps=tuple(
            RtlStep(
                number=number,
                name=step.name,
                operator=step.operator.kind,
                source=step.source,
                edge=step.output,
                shape=program.edges[step.output].shape,
                place=lowered.memory.edges[step.output],
                passes=len(descriptors[number]),
                cycles=sum(descriptor_cycles(one, machine) for one in descriptors[number]),
            )
            for number, step in enumerate(program.steps)
        ),
    )


def design_parameters(lowered: LoweredProgram) -> DesignParameters:
    """Returns the parameters of the smallest design that runs a program.

    All depths are powers of 2, and at least 16.
    """
    machine, images = lowered.accelerator, lowered.images
    depth = {memory: _power_of_two(words) for memory, words in lowered.memory.depths().items()}
    widest = max(lowered.program.target.multiplier_bits, images.multiplier_bits)
    return DesignParameters(
        rows=machine.rows,
        columns=machine.columns,
        lanes=lowered.lanes,
        weight_bits=machine.weight_bits,
        activation_bits=machine.activation_bits,
        accumulator_bits=machine.accumulator_bits,
        multiplier_bits=min(widest, MULTIPLIER_BITS),
        kept=machine.kept,
        group=machine.group,
        activation_depth=depth["activations"],
        accumulator_depth=depth["accumulators"],
        weight_depth=_power_of_two(len(images.weights)),
        parameter_depth=_power_of_two(len(images.parameters)),
        table_depth=_power_of_two(len(images.tables)),
        descriptor_depth=_power_of_two(len(lowered.descriptors) + 1),
        steps=_power_of_two(len(lowered.program.steps)),
    )


def _power_of_two(words: int) -> int:
    return 1 << max(4, (words - 1).bit_length())


def _write_run(
    lowered: LoweredProgram, design: RtlDesign, batch: Sequence[Sample], folder: Path
) -> None:
    """Writes the files that one program runs with, and the files that it is compared with."""
    _write_program(lowered, design, folder / PROGRAM_FOLDER)
    _write_inputs(lowered, batch, folder / INPUTS_FOLDER)
    _write_golden(lowered, batch, folder / GOLDEN_FOLDER)


def _write_program(lowered: LoweredProgram, design: RtlDesign, folder: Path) -> None:
    machine, images = lowered.accelerator, lowered.images
    parameter_bits = max(PARAMETER_BITS, machine.accumulator_bits)
    folder.mkdir()
    _write_text(folder / TABLE_FILE, render_table(lowered.descriptors))
    _write_lines(folder / WEIGHTS_FILE, weight_lines(images.weights, images.patterns, machine))
    _write_lines(folder / "parameters.hex", words_to_hex(images.parameters, parameter_bits))
    tables = words_to_hex(images.tables[:, None], machine.accumulator_bits)
    _write_lines(folder / "tables.hex", tables)
    _write_lines(
        folder / "dumps.hex",
        [
            f"{MEMORIES.index(step.place.memory):08x}{step.place.address:08x}"
            f"{step.place.words if step.passes else 0:08x}"
            for step in design.steps
        ],
    )


def _write_inputs(lowered: LoweredProgram, samples: Sequence[Sample], folder: Path) -> None:
    """Writes what both memories hold before the first step: the inputs and the constants."""
    program, places = lowered.program, lowered.memory.edges
    constants = {
        step.output: program.parameters(step)["value"]
        for step in program.steps
        if isinstance(step.operator, Constant)
    }
    for number, inputs in enumerate(samples):
        (folder / str(number)).mkdir(parents=True)
        initial = [(places[name], codes) for name, codes in (inputs | constants).items()]
        for memory in MEMORIES:
            _write_lines(folder / str(number) / f"{memory}.hex", _image(initial, memory))


def _image(initial: Sequence[tuple[Place, np.ndarray]], memory: Memory) -> list[str]:
    """Returns the text of a memory's initial content, with an address line for each edge."""
    lines = [f"// initial content of the {memory} memory"]
    for place, codes in sorted(initial, key=lambda pair: pair[0].address):
        if place.memory == memory:
            lines.append(f"@{place.address:x}")
            lines += words_to_hex(place.words_of(codes), place.lane_bits)
    if len(lines) == 1:
        lines += ["@0", "0"]
    return lines


def _write_golden(lowered: LoweredProgram, samples: Sequence[Sample], folder: Path) -> None:
    """Writes the words of every step's output; lanes without a channel are 0."""
    links = lowered.program.links
    for sample in range(len(samples)):
        (folder / str(sample)).mkdir(parents=True)
    for sample, edge, codes in golden_edges(lowered.program, list(samples)):
        maker = links.makers.get(edge)
        if maker is not None:
            place = lowered.memory.edges[edge]
            words = words_to_hex(place.words_of(codes), place.lane_bits)
            _write_lines(folder / str(sample) / f"step_{links.positions[maker.name]}.hex", words)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    _write_text(path, "\n".join(lines) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
