"""What the README of an RTL export says about an array that is dense or sparse."""

import textwrap

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.forms.rtl.weight_image import word_bits

WIDTH = 100

SECTION = (
    "The array keeps KEPT = {kept} of GROUP = {group} inputs: {kept} rows form a group and read "
    "{group} inputs together. A weight has a position, which says which of these inputs it "
    "multiplies. ROWS rows therefore cover {inputs} input channels at once if every group of "
    "{group} inputs has at most {kept} weights for each output. Where it has more, a tile takes "
    "several such passes, or dense passes if these are not more (`dense` in the descriptor). In a "
    "dense pass, each row reads one lane, and the pass covers {rows} input channels. Every pass "
    "loads the rows of a group in one cycle."
)


def sparse_section(machine: Accelerator) -> str:
    """Returns the section about a sparse array; nothing for a dense one."""
    if machine.sparse is None:
        return ""
    text = SECTION.format(
        kept=machine.kept, group=machine.group, inputs=machine.sparse_inputs, rows=machine.rows
    )
    return f"## The sparse array\n\n{textwrap.fill(text, WIDTH)}\n\n"


def port_notes(machine: Accelerator) -> str:
    """Returns what the table of the array's ports leaves open."""
    text = '"Lowest" means in the least significant bits. '
    if machine.sparse is None:
        text += "This array is dense: KEPT and GROUP are 1, and `positions` is 0."
    else:
        text += (
            f"Here KEPT is {machine.kept} and GROUP is {machine.group}. Cycles without weights may "
            "lie between those that bring a tile."
        )
    return textwrap.fill(text, WIDTH)


def weights_image(machine: Accelerator) -> str:
    """Returns the description of `weights.hex`."""
    if machine.sparse is None:
        text = (
            "- `weights.hex` has one word for each row of a tile, with COLUMNS signed weights. "
            "Column 0 lies in the lowest bits."
        )
    else:
        values = machine.columns * machine.kept * machine.weight_bits
        bits = machine.sparse.index_bits
        text = (
            f"- `weights.hex` has one word of {word_bits(machine)} bits for each group of rows. "
            f"The low {values} bits hold KEPT signed weights for each column, with column 0 and "
            f"the first row of the group lowest. Above them, {bits} bits for each column hold the "
            "number of its pattern. The pattern of the positions p0 < p1 < ... has the number "
            "C(p0, 1) + C(p1, 2) + ..., where C is the binomial coefficient. Number 0 stands for "
            "the positions 0, 1, 2, ..., as in a dense pass."
        )
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")
