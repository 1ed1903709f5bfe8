"""Counts the on-chip memory that the edges of a program take, step by step.

An edge is alive from the step that computes it to the last step that reads it, both included. An
input is alive from the start to its last reader, and an output to the end of the program. Constants
are left out, because their values lie with the weights. Bytes are counted in the target's memory
words, as in memory images.
"""

from photomask.chip.cost.fusion import edge_bytes
from photomask.chip.operators import Family
from photomask.chip.program import IntegerProgram
from photomask.documents import Document


class LiveMemory(Document):
    """The memory of the edges that are alive while one step runs, for one sample.

    Attributes:
        step: the name of the step.
        activation_bytes: the bytes of all inputs and activations that are alive.
        accumulator_bytes: the bytes of all accumulators that are alive. A machine that rescales
            each sum as it leaves the array does not store accumulators with a single reader.
    """

    step: str
    activation_bytes: int
    accumulator_bytes: int


def live_memory(program: IntegerProgram) -> tuple[LiveMemory, ...]:
    """Returns the memory that is in use while each step runs, in the order of computation."""
    steps, links = program.steps, program.links
    grown = {"activation": [0] * (len(steps) + 1), "accumulator": [0] * (len(steps) + 1)}
    for name, edge in program.edges.items():
        maker = links.makers.get(name)
        if maker is not None and maker.operator.family is Family.CONSTANT:
            continue
        first = 0 if maker is None else links.positions[maker.name]
        last = links.last_reads.get(name, first)
        if name in program.outputs:
            last = len(steps) - 1
        changes = grown["accumulator" if edge.role == "accumulator" else "activation"]
        size = edge_bytes(program, name)
        changes[first] += size
        changes[last + 1] -= size
    found: list[LiveMemory] = []
    activations = accumulators = 0
    for position, step in enumerate(steps):
        activations += grown["activation"][position]
        accumulators += grown["accumulator"][position]
        found.append(
            LiveMemory(step=step.name, activation_bytes=activations, accumulator_bytes=accumulators)
        )
    return tuple(found)
