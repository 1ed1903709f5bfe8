"""Which steps of a program run together, and what each asks of memory and of the lanes."""

import math
from dataclasses import dataclass

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.cost.products import packed_bytes
from photomask.chip.operators import (
    Add,
    AveragePool,
    Clamp,
    Constant,
    Convolution,
    Linear,
    Lookup,
    Matmul,
    MaxPool,
    Multiply,
    Normalize,
    Requantize,
    Reshape,
    Softmax,
    Sum,
)
from photomask.chip.packing import Packing
from photomask.chip.program import IntegerProgram, Step


@dataclass(frozen=True)
class Pass:
    """A step, and the steps that its results go through on their way out."""

    step: Step
    fused: tuple[Step, ...]

    @property
    def output(self) -> str:
        """The edge that is written."""
        return (self.fused or (self.step,))[-1].output


@dataclass(frozen=True)
class LaneWork:
    """Operations on the lanes beside the array, for one sample."""

    operations: int
    """Of the step itself; those of fused steps are done while its results leave."""
    energy_pj: float
    """Fused steps included."""


def passes_of(program: IntegerProgram) -> list[Pass]:
    """Returns the program's steps in the order of computation, every step in exactly one pass.

    A requantization, a table or a clamp belongs to the step before it where nothing else reads that
    step's result: accumulators then never leave the machine.
    """
    readers: dict[str, list[Step]] = {name: [] for name in program.edges}
    for step in program.steps:
        for name in step.inputs:
            readers[name].append(step)
    found, taken = [], set()
    for step in program.steps:
        if step.name in taken:
            continue
        fused, edge = [], step.output
        while not isinstance(step.operator, Reshape | Constant) and edge not in program.outputs:
            if len(readers[edge]) != 1:
                break
            after = readers[edge][0]
            if not isinstance(after.operator, Requantize | Lookup | Clamp):
                break
            fused.append(after)
            edge = after.output
        taken.update(after.name for after in fused)
        found.append(Pass(step, tuple(fused)))
    return found


def edge_bytes(program: IntegerProgram, name: str) -> int:
    """Returns the bytes of the memory words that hold one sample of an edge."""
    edge = program.edges[name]
    return packed_bytes(Packing.of(edge.format, program.target), math.prod(edge.shape))


def constant_bytes(program: IntegerProgram, found: Pass) -> int:
    """Returns the bytes of all constants of a pass but the weights: biases, multipliers, tables."""
    return sum(
        packed_bytes(Packing.of(program.formats[name], program.target), program.tensors[name].size)
        for step in (found.step, *found.fused)
        for role, name in step.tensors.items()
        if not isinstance(step.operator, Constant)
        and not (role == "weight" and isinstance(step.operator, Convolution | Linear))
    )


def lane_work(program: IntegerProgram, found: Pass, accelerator: Accelerator) -> LaneWork:
    """Returns what a pass does outside the array.

    A lane does one operation a cycle: it takes in one operand of an addition, a sum or a pooling,
    makes one product, rescales, looks up, clamps or moves one value. A product of matrices and a
    reshape need none.
    """
    operations = _operations(program, found.step)
    energy = operations * _operation_pj(found.step, accelerator)
    for step in found.fused:
        energy += _operations(program, step) * _operation_pj(step, accelerator)
    return LaneWork(operations, energy)


def _operations(program: IntegerProgram, step: Step) -> int:
    operator, outputs = step.operator, math.prod(program.edges[step.output].shape)
    if isinstance(operator, Convolution | Linear | Matmul | Reshape | Constant):
        return 0
    if isinstance(operator, Add):
        return outputs * len(step.inputs)
    if isinstance(operator, Sum):
        return outputs * operator.terms
    if isinstance(operator, Softmax | Normalize):
        return 3 * outputs  # one visit for the peak or the sum, one for the total, one to divide
    if isinstance(operator, MaxPool):
        return outputs * math.prod(operator.kernel)
    if isinstance(operator, AveragePool):
        windows = operator.windows(program.edges[step.inputs[0]].shape[-len(operator.kernel) :])
        elements = math.prod(sum(stop - start for start, stop in axis) for axis in windows)
        return outputs // math.prod(operator.output_size) * elements
    return outputs


def _operation_pj(step: Step, accelerator: Accelerator) -> float:
    """Returns the energy of one operation; moving costs only its reads and writes."""
    energy = accelerator.energy
    if isinstance(step.operator, Add | Multiply):
        return energy.multiply_accumulate_pj(
            accelerator.weight_bits, accelerator.activation_bits, accelerator.accumulator_bits
        )
    if isinstance(step.operator, Sum | MaxPool | AveragePool | Clamp):
        return energy.add_32_pj
    if isinstance(step.operator, Requantize):
        return energy.requantize_pj
    if isinstance(step.operator, Normalize):
        return energy.requantize_pj
    if isinstance(step.operator, Lookup | Softmax):
        return energy.lookup_pj
    return 0.0
