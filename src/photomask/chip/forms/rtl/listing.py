"""The table of all descriptors, `passes.txt`, written for people.

The files of an export call the execution of one descriptor a pass.
"""

from photomask.chip.forms.rtl.cycles import descriptor_cycles
from photomask.chip.forms.rtl.descriptors import Descriptor, Operation
from photomask.chip.forms.rtl.lowering import LoweredProgram
from photomask.chip.forms.rtl.memory_map import MEMORIES, Place
from photomask.chip.program import Step
from photomask.documents import aligned

LISTING_FILE = "passes.txt"


def render_listing(lowered: LoweredProgram) -> str:
    """Returns a table of all descriptors: the step and the tile of each, and its cycles."""
    machine = lowered.accelerator
    rows = [("pass", "step", "operator", "tile", "positions", "cycles")]
    for number, one in enumerate(lowered.descriptors):
        step = lowered.program.steps[one.step]
        rows.append(
            (
                str(number),
                step.name,
                step.operator.kind,
                _tile_name(lowered, number),
                str(one.outputs),
                str(descriptor_cycles(one, machine)),
            )
        )
    return "\n".join(aligned(rows)) + "\n"


def _tile_name(lowered: LoweredProgram, number: int) -> str:
    """Returns a description of the part of its step that a descriptor computes."""
    one = lowered.descriptors[number]
    step = lowered.program.steps[one.step]
    copies = [place for (name, _), place in lowered.memory.copies.items() if name == step.name]
    if one.operation in (Operation.SOFTMAX, Operation.NORMALIZE):
        return f"rows 0 to {one.output_width - 1} of {one.kernel_width} elements"
    if one.operation is Operation.TILE:
        source = _place_of(lowered, step, 1)
        first = source.first_channel(one.input_address) + -one.rotation % source.lanes
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
    first, last = (target.first_channel(word) for word in (one.output_address, last_word))
    outputs = f"output channels {first + one.first_lane} to {last + one.last_lane}"
    if one.operation is not Operation.MATRIX:
        return outputs
    if not one.input_height:
        return f"{outputs}, biases alone"
    source = _place_of(lowered, step, 0)
    first = source.first_channel(one.input_address) + -one.rotation % target.lanes
    machine = lowered.accelerator
    compressed = machine.sparse is not None and not one.dense
    last = first + (machine.sparse_inputs if compressed else machine.rows) - 1
    kept = f" ({machine.sparse})" if compressed else ""
    begins = ", begins with biases" if not one.start_from_memory else ""
    return (
        f"{outputs}, input channels {first} to {last}{kept}, input row {one.origin_row}, "
        f"column {one.origin_column}{begins}"
    )


def _place_of(lowered: LoweredProgram, step: Step, number: int) -> Place:
    """Returns the place where a step reads an input."""
    edge = lowered.memory.edges[step.inputs[number]]
    return lowered.memory.copies.get((step.name, number), edge)


def _writes(one: Descriptor, place: Place) -> bool:
    """Tells whether a descriptor writes to a place."""
    memory = MEMORIES[one.output_in_accumulators]
    return memory == place.memory and 0 <= one.output_address - place.address < place.words
