"""How many cycles the reference design takes, from its passes alone.

Passes do not overlap, so a step takes the sum of its passes:

    MATRIX   outputs + 2 * rows + columns + 6
    VECTOR   outputs * taps of the kernel + 11

Both hold three cycles to fetch the descriptor, fetch its parameters and start. MATRIX then holds
`rows` cycles of loading weights, one for each output position, and from the last position on
`rows + columns + 3` until its sum is written. VECTOR holds one cycle for each tap, and from the
last one on 8 until its result is written.

A convolution of O outputs at P positions from I inputs (in one group) through K taps therefore
takes `ceil(O / columns) * ceil(I / rows) * K * (P + 2 * rows + columns + 6)` cycles.
"""

from photomask.chip.hardware.accelerator import Accelerator
from photomask.chip.hardware.descriptors import Descriptor, Operation
from photomask.chip.hardware.lowering import LoweredProgram, lower, steps_in_order
from photomask.chip.program import IntegerProgram

MATRIX_OVERHEAD = 6
VECTOR_OVERHEAD = 11


def pass_cycles(descriptor: Descriptor, rows: int, columns: int) -> int:
    """Returns the cycles of one pass on an array of `rows` and `columns`."""
    if descriptor.operation is Operation.MATRIX:
        return descriptor.taps + 2 * rows + columns + MATRIX_OVERHEAD
    return descriptor.taps + VECTOR_OVERHEAD


def step_cycles(lowered: LoweredProgram) -> dict[str, int]:
    """Returns the cycles of each step that has passes, in the order of computation."""
    machine = lowered.accelerator
    return {
        step.name: sum(pass_cycles(one, machine.rows, machine.columns) for one in passes)
        for _, step, passes in steps_in_order(lowered)
    }


def model_cycles(program: IntegerProgram, accelerator: Accelerator) -> dict[str, int]:
    """Returns the cycles that each step of a program takes on the reference design.

    Raises:
        TargetError: a step does not run on the design.
    """
    return step_cycles(lower(program, accelerator))
