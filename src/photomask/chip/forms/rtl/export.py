"""The RTL export: the reference design, one program for it, and what every step must compute."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

import photomask
from photomask.chip.cost.accelerator import PRESETS, Accelerator, load_accelerator
from photomask.chip.forms.conformance.documents import CONFORMANCE_FOLDER, VECTORS_FILE
from photomask.chip.forms.conformance.vectors import conformance_vectors
from photomask.chip.forms.golden import golden_edges, single_samples
from photomask.chip.forms.rtl.cycles import pass_cycles
from photomask.chip.forms.rtl.descriptors import Descriptor, Operation, render_table
from photomask.chip.forms.rtl.design import (
    DESIGN_FILE,
    DesignParameters,
    RtlDesign,
    RtlEdge,
    RtlStep,
)
from photomask.chip.forms.rtl.files import (
    GOLDEN_FOLDER,
    INPUTS_FOLDER,
    PROGRAM_FOLDER,
    RTL_FOLDER,
    file_records,
)
from photomask.chip.forms.rtl.images import MULTIPLIER_BITS
from photomask.chip.forms.rtl.lowering import LoweredProgram, lower
from photomask.chip.forms.rtl.memory_map import MEMORIES, Memory, Place, words_to_hex
from photomask.chip.forms.rtl.readme import render_makefile, render_readme
from photomask.chip.program import IntegerProgram, Step
from photomask.chip.program.codes import Inputs
from photomask.documents import aligned, written_whole

PASSES_FILE = "passes.txt"
README_FILE = "README.md"
MAKE_FILE = "Makefile"
COCOTB_FILE = "test_design.py"
PARAMETER_BITS = 40
"""Bits of a lane of a parameter word, unless the accumulators are wider."""


def export_rtl(
    program: IntegerProgram,
    folder: str | Path,
    inputs: Inputs,
    *,
    accelerator: Accelerator | str | Path = PRESETS["reference"],
    samples: int | None = None,
) -> RtlDesign:
    """Writes the reference design with a program and its golden vectors as a folder.

    The folder appears whole or not at all, and replaces an earlier export. Its README says how to
    run it and how to put another array in. Its subfolder `conformance` holds a second program for
    the same design: vectors that prove its rescaling, whatever the network's data are. The same
    program and inputs give the same bytes.

    Args:
        program: what the design shall compute.
        folder: where to.
        inputs: int64 codes, batch first; a mapping by input name where there are several.
        accelerator: rows, columns and widths of the design.
        samples: how many samples of `inputs` become golden vectors; None takes all.

    Returns:
        What `design.json` holds.

    Raises:
        TargetError: steps that do not run on the design, all of them at once.
        DataError: the inputs do not fit the program.
        ExportError: the folder holds something else, or the disk refused a file.
    """
    accelerator = load_accelerator(accelerator)
    batch = single_samples(program, inputs, samples)
    lowered = lower(program, accelerator)
    vectors = conformance_vectors(program, accelerator.accumulator_bits)
    proof = None if vectors is None else lower(vectors.program(program.target), accelerator)
    parameters = design_parameters(lowered)
    if proof is not None:
        parameters = parameters.joined(design_parameters(proof))
    design = describe(lowered, len(batch), parameters)
    proof_design = None if proof is None else describe(proof, 1, parameters)
    with written_whole(Path(folder), "RTL export") as staging:
        write_sources(staging / RTL_FOLDER)
        _write_run(lowered, design, batch, staging)
        if vectors is not None and proof is not None and proof_design is not None:
            place = staging / CONFORMANCE_FOLDER
            place.mkdir()
            _write_run(proof, proof_design, [vectors.inputs()], place)
            _write_text(place / VECTORS_FILE, vectors.render())
            _write_text(place / DESIGN_FILE, proof_design.sealed().render())
        _write_text(staging / PASSES_FILE, render_passes(lowered))
        limit = 0 if proof_design is None else proof_design.limit
        _write_text(staging / README_FILE, render_readme(design))
        _write_text(staging / MAKE_FILE, render_makefile(design, source_names(), limit))
        _write_text(staging / COCOTB_FILE, _packaged("cocotb_test.py"))
        design = design.model_copy(update={"files": file_records(staging)}).sealed()
        _write_text(staging / DESIGN_FILE, design.render())
    return design


def source_names() -> list[str]:
    """Returns the names of the RTL's files, the package first."""
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
    """Returns what `design.json` says of a lowered program, without hashes.

    Args:
        lowered: the program.
        samples: how many golden samples there are.
        parameters: of the design; None takes those of the smallest that runs the program.
    """
    program, machine = lowered.program, lowered.accelerator
    passes = {number: lowered.passes_of(number) for number in range(len(program.steps))}
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
                passes=len(passes[number]),
                cycles=sum(pass_cycles(p, machine.rows, machine.columns) for p in passes[number]),
            )
            for number, step in enumerate(program.steps)
        ),
    )


def design_parameters(lowered: LoweredProgram) -> DesignParameters:
    """Returns the parameters of the smallest design that runs a program; depths are powers of 2."""
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
    lowered: LoweredProgram, design: RtlDesign, batch: list[dict[str, np.ndarray]], folder: Path
) -> None:
    """Writes what one program is run with and what it is compared with."""
    _write_program(lowered, design, folder / PROGRAM_FOLDER)
    _write_inputs(lowered, batch, folder / INPUTS_FOLDER)
    _write_golden(lowered, batch, folder / GOLDEN_FOLDER)


def _write_program(lowered: LoweredProgram, design: RtlDesign, folder: Path) -> None:
    machine, images = lowered.accelerator, lowered.images
    parameter_bits = max(PARAMETER_BITS, machine.accumulator_bits)
    folder.mkdir()
    _write_text(folder / "descriptors.hex", render_table(lowered.descriptors))
    _write_lines(folder / "weights.hex", words_to_hex(images.weights, machine.weight_bits))
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


def _write_inputs(
    lowered: LoweredProgram, samples: list[dict[str, np.ndarray]], folder: Path
) -> None:
    """Writes what both memories hold before the first step: the inputs and the constants."""
    program, places = lowered.program, lowered.memory.edges
    constants = {
        step.output: program.parameters(step)["value"]
        for step in program.steps
        if step.operator.kind == "constant"
    }
    for number, inputs in enumerate(samples):
        (folder / str(number)).mkdir(parents=True)
        initial = [(places[name], codes) for name, codes in (inputs | constants).items()]
        for memory in MEMORIES:
            _write_lines(folder / str(number) / f"{memory}.hex", _image(initial, memory))


def _image(initial: Sequence[tuple[Place, np.ndarray]], memory: Memory) -> list[str]:
    """Returns the text of a memory's first state, one stretch an edge."""
    lines = [f"// first state of the {memory} memory"]
    for place, codes in sorted(initial, key=lambda pair: pair[0].address):
        if place.memory == memory:
            lines.append(f"@{place.address:x}")
            lines += words_to_hex(place.words_of(codes), place.lane_bits)
    if len(lines) == 1:
        lines += ["@0", "0"]
    return lines


def _write_golden(
    lowered: LoweredProgram, samples: list[dict[str, np.ndarray]], folder: Path
) -> None:
    """Writes the words of every step's output, lanes without a channel as 0."""
    makers = {step.output: number for number, step in enumerate(lowered.program.steps)}
    for sample in range(len(samples)):
        (folder / str(sample)).mkdir(parents=True)
    for sample, edge, codes in golden_edges(lowered.program, samples):
        if edge in makers:
            place = lowered.memory.edges[edge]
            words = words_to_hex(place.words_of(codes), place.lane_bits)
            _write_lines(folder / str(sample) / f"step_{makers[edge]}.hex", words)


def render_passes(lowered: LoweredProgram) -> str:
    """Returns a table of all passes for people: which tile of which step, and its cycles."""
    machine = lowered.accelerator
    rows = [("pass", "step", "operator", "tile", "positions", "cycles")]
    for number, one in enumerate(lowered.descriptors):
        step = lowered.program.steps[one.step]
        rows.append(
            (
                str(number),
                step.name,
                step.operator.kind,
                tile_name(lowered, number),
                str(one.outputs),
                str(pass_cycles(one, machine.rows, machine.columns)),
            )
        )
    return "\n".join(aligned(rows)) + "\n"


def tile_name(lowered: LoweredProgram, number: int) -> str:
    """Says which part of its step a pass computes."""
    one = lowered.descriptors[number]
    step = lowered.program.steps[one.step]
    copies = [place for (name, _), place in lowered.memory.copies.items() if name == step.name]
    if one.operation in (Operation.SOFTMAX, Operation.NORMALIZE):
        return f"rows 0 to {one.output_width - 1} of {one.kernel_width} elements"
    if one.operation is Operation.TILE:
        source = _place_of(lowered, step, 1)
        first = _channel(source, one.input_address) + -one.rotation % source.lanes
        position = (one.input_address - source.address) % source.positions
        last = first + lowered.accelerator.columns - 1
        return (
            f"weights from positions {position} to {position + one.input_width - 1}, channels "
            f"{first} to {last}"
        )
    target = lowered.memory.edges[step.output]
    if any(_writes(one, copy) for copy in copies) and not _writes(one, target):
        return "copy of an input"
    last_word = one.output_address + (one.outputs - 1) * one.output_step
    first, last = (_channel(target, word) for word in (one.output_address, last_word))
    outputs = f"output channels {first + one.first_lane} to {last + one.last_lane}"
    if one.operation is not Operation.MATRIX:
        return outputs
    source = _place_of(lowered, step, 0)
    first = _channel(source, one.input_address) + -one.rotation % target.lanes
    last = first + lowered.accelerator.rows - 1
    begins = ", begins with biases" if not one.start_from_memory else ""
    return (
        f"{outputs}, input channels {first} to {last}, input row {one.origin_row}, "
        f"column {one.origin_column}{begins}"
    )


def _place_of(lowered: LoweredProgram, step: Step, number: int) -> Place:
    """Returns where a step reads an input."""
    edge = lowered.memory.edges[step.inputs[number]]
    return lowered.memory.copies.get((step.name, number), edge)


def _channel(place: Place, word: int) -> int:
    """Returns the channel in lane 0 of a word."""
    return (word - place.address) // place.positions * place.lanes


def _writes(one: Descriptor, place: Place) -> bool:
    """Tells whether a pass writes to a place."""
    memory = MEMORIES[one.output_in_accumulators]
    return memory == place.memory and 0 <= one.output_address - place.address < place.words


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    _write_text(path, "\n".join(lines) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
