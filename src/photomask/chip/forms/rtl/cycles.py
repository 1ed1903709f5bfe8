"""Computes how many cycles the reference design takes, from its descriptors alone.

A descriptor begins when the one before it has ended, so a step takes the sum of its descriptors:

    MATRIX      outputs + 2 * groups + columns + 6; less `groups` if it keeps the weights
    VECTOR      outputs * taps of the kernel + 11
    TILE        rows + 4
    SOFTMAX     4 + matrix rows * (3 * walk + reciprocal bits + 1)
    NORMALIZE   4 + matrix rows * (3 * walk + 73); 2 walks if it is not centred

Here walk = 2 * words of a row + its elements + 4. The `groups` are the rows of a dense array. In an
array for N:M they are `rows / N`, because N rows load and compute together.

Every count includes three cycles: to fetch the descriptor, to fetch its parameters, and to start.
MATRIX also takes `groups` cycles to load weights, one cycle for each output position, and `groups +
columns + 3` cycles from the last position until its sum is written. VECTOR takes one cycle for each
tap, and 8 cycles from the last tap until its result is written. SOFTMAX and NORMALIZE take one
cycle for each element in each walk over a row, 2 to read a word, 4 to end a walk, and the cycles of
the divider. The divider produces one bit per cycle. For NORMALIZE it takes 24 cycles for a square
root, 1 to pass it on, and 48 to divide. SOFTMAX, NORMALIZE and TILE take one more cycle before the
next descriptor.

A convolution of O outputs at P positions from I inputs (in one group) through K taps therefore
takes `ceil(O / columns) * ceil(I / rows) * K * (P + 2 * groups + columns + 6)` cycles if none of
its tiles is zero. A tile of zeros has no descriptor. A block of outputs whose tiles are all zero
takes one descriptor of `P + groups + columns + 6` cycles, which writes the biases. If the weights
keep the array's pattern N:M, a tile covers `rows * M / N` inputs instead of `rows`.
"""

from pathlib import Path

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.forms.rtl.descriptors import Descriptor, Operation
from photomask.chip.forms.rtl.lowering import LoweredProgram, lower, steps_in_order, word_lanes
from photomask.chip.program import IntegerProgram

MATRIX_OVERHEAD = 6
VECTOR_OVERHEAD = 11
TILE_OVERHEAD = ROW_OVERHEAD = 4
WORD_CYCLES = 2
WALK_OVERHEAD = 4
ROOT_CYCLES = 73


def descriptor_cycles(descriptor: Descriptor, machine: Accelerator) -> int:
    """Returns the cycles of one descriptor on the design as an accelerator."""
    match descriptor.operation:
        case Operation.MATRIX:
            groups = machine.row_groups
            loading = 0 if descriptor.keep_weights else groups
            return descriptor.taps + loading + groups + machine.columns + MATRIX_OVERHEAD
        case Operation.TILE:
            return machine.rows + TILE_OVERHEAD
        case Operation.SOFTMAX | Operation.NORMALIZE:
            return _row_cycles(descriptor, word_lanes(machine)) + ROW_OVERHEAD
        case _:
            return descriptor.taps + VECTOR_OVERHEAD


def _row_cycles(descriptor: Descriptor, lanes: int) -> int:
    """Returns the cycles of all rows of a softmax or a norm."""
    elements = descriptor.kernel_width
    walk = WORD_CYCLES * -(-elements // lanes) + elements + WALK_OVERHEAD
    if descriptor.operation is Operation.SOFTMAX:
        return descriptor.output_width * (3 * walk + descriptor.reciprocal_bits + 1)
    return descriptor.output_width * ((2 + descriptor.centred) * walk + ROOT_CYCLES)


def step_cycles(lowered: LoweredProgram) -> dict[str, int]:
    """Returns the cycles of each step that has descriptors, in the order of computation."""
    machine = lowered.accelerator
    return {
        step.name: sum(descriptor_cycles(one, machine) for one in group)
        for _, step, group in steps_in_order(lowered)
    }


def model_cycles(program: IntegerProgram, accelerator: Accelerator | str | Path) -> dict[str, int]:
    """Returns the cycles that each step of a program takes on the reference design.

    Raises:
        FormError: a step does not run on the design.
        TargetError: the design cannot be built as this accelerator.
    """
    return step_cycles(lower(program, accelerator))
