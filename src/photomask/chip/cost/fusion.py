"""Finds the steps of a program that are fused, and what each group asks of memory and lanes."""

import math
from dataclasses import dataclass

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.cost.products import packed_bytes
from photomask.chip.operators import Family, LaneOperations, MatrixProduct
from photomask.chip.packing import Packing
from photomask.chip.program import IntegerProgram, Step


@dataclass(frozen=True)
class FusionGroup:
    """A step, and the epilogues that are applied to its results as they leave."""

    step: Step
    fused: tuple[Step, ...]

    @property
    def output(self) -> str:
        """The edge that the group writes."""
        return (self.fused or (self.step,))[-1].output


@dataclass(frozen=True)
class LaneWork:
    """The operations on the lanes beside the array, for one sample."""

    operations: int
    """The operations of the step itself. Those of fused steps run while its results leave."""
    energy_pj: float
    """The energy in picojoules, including the fused steps."""


def fusion_groups(program: IntegerProgram) -> list[FusionGroup]:
    """Returns groups of the program's steps in the order of computation; each step is in one group.

    A requantization, a table or a clamp joins the group of the step before it if nothing else reads
    that step's result. Accumulators then never leave the machine. A step without any work has no
    epilogues, because it produces no results that leave.
    """
    found: list[FusionGroup] = []
    fused: set[str] = set()
    for step in program.steps:
        if step.name in fused:
            continue
        works = program.work(step) != LaneOperations()
        group = FusionGroup(step, program.links.epilogues(step) if works else ())
        fused.update(epilogue.name for epilogue in group.fused)
        found.append(group)
    return found


def edge_bytes(program: IntegerProgram, name: str) -> int:
    """Returns the bytes of the memory words that hold one sample of an edge."""
    edge = program.edges[name]
    return packed_bytes(Packing.of(edge.format, program.target), math.prod(edge.shape))


def constant_bytes(program: IntegerProgram, group: FusionGroup) -> int:
    """Returns the bytes of a group's constants: biases, multipliers and tables.

    The weights of a product of matrices are not included, because they are read and counted tile by
    tile. The value of a constant step is not included, because it is counted as its edge.
    """
    return sum(
        packed_bytes(Packing.of(program.formats[name], program.target), program.tensors[name].size)
        for step in (group.step, *group.fused)
        if step.operator.family is not Family.CONSTANT
        for role, name in step.tensors.items()
        if not (role == "weight" and isinstance(program.work(step), MatrixProduct))
    )


def lane_work(program: IntegerProgram, group: FusionGroup, accelerator: Accelerator) -> LaneWork:
    """Returns the work of a group outside the array.

    A lane does one operation per cycle: it takes one operand of an addition, a sum or a pooling, or
    makes one product, or rescales, looks up, clamps or moves one value. A product of matrices and a
    reshape need no operations.
    """
    own = _lane_operations(program, group.step)
    energy = _energy_pj(own, accelerator)
    for step in group.fused:
        energy += _energy_pj(_lane_operations(program, step), accelerator)
    return LaneWork(own.total, energy)


def _lane_operations(program: IntegerProgram, step: Step) -> LaneOperations:
    work = program.work(step)
    return LaneOperations() if isinstance(work, MatrixProduct) else work


def _energy_pj(counts: LaneOperations, accelerator: Accelerator) -> float:
    """Returns the energy of operations; a move costs only its reads and writes."""
    energy = accelerator.energy
    multiply_add_pj = energy.multiply_accumulate_pj(
        accelerator.weight_bits, accelerator.activation_bits, accelerator.accumulator_bits
    )
    return (
        counts.multiply_adds * multiply_add_pj
        + counts.additions * energy.add_32_pj
        + counts.rescalings * energy.requantize_pj
        + counts.lookups * energy.lookup_pj
    )
