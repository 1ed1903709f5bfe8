"""Reads the weights of an export back from its descriptors and its weight memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from photomask.chip.forms.rtl.descriptors import (
    TABLE_FILE,
    Descriptor,
    Operation,
    rows_and_columns,
)
from photomask.chip.forms.rtl.files import PROGRAM_FOLDER
from photomask.chip.forms.rtl.lowering import LoweredProgram
from photomask.chip.forms.rtl.weight_image import WEIGHTS_FILE, tile_in
from photomask.chip.operators import Convolution, Linear
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step
from photomask.documents import read_text
from photomask.errors import DocumentError


def wrong_weights(lowered: LoweredProgram, folder: Path) -> list[str]:
    """Returns a problem for each layer whose weights in the export are not the program's.

    Args:
        lowered: the program, with the places of its edges in the export.
        folder: the export.

    Raises:
        DocumentError: a file is missing or holds something else than words.
    """
    lines = _words(folder / PROGRAM_FOLDER / WEIGHTS_FILE)
    table = [Descriptor.decode(int(x, 16)) for x in _words(folder / PROGRAM_FOLDER / TABLE_FILE)]
    problems = []
    for number, step in enumerate(lowered.program.steps):
        if not isinstance(step.operator, Convolution | Linear):
            continue
        found = _weights_in([one for one in table if one.step == number], lines, lowered, step)
        wrong = int((found != _spread(lowered, step, found.shape)).sum())
        if wrong:
            problems.append(
                f"step {step.name!r}: {wrong} weights in {WEIGHTS_FILE} are not the program's"
            )
    return problems


def _words(path: Path) -> list[str]:
    """Returns the words of a memory image, without its comments."""
    lines = [line for line in read_text(path).splitlines() if line and line[0] != "/"]
    digits = set("0123456789abcdef")
    for number, line in enumerate(lines):
        if not set(line) <= digits:
            raise DocumentError(f"{path}: word {number} is {line!r}, expected a hexadecimal number")
    return lines


def _weights_in(
    descriptors: Sequence[Descriptor], lines: Sequence[str], lowered: LoweredProgram, step: Step
) -> np.ndarray:
    """Returns the weights of a layer, with those between groups, [outputs, inputs, *kernel]."""
    machine, memory = lowered.accelerator, lowered.memory
    source = memory.copies.get((step.name, 0), memory.edges[step.inputs[0]])
    target = memory.edges[step.output]
    kernel = rows_and_columns(_weight_shape(lowered, step)[2:])
    # Rows and columns of the last tiles may lie behind the last channel.
    extent = [place.blocks * place.lanes for place in (target, source)]
    whole = np.zeros((*extent, *kernel), dtype=np.int64)
    read: set[int] = set()
    for one in descriptors:
        # Several maps along the batch axis read the same tiles.
        if (
            one.operation is Operation.MATRIX
            and one.input_height
            and one.weight_address not in read
        ):
            read.add(one.weight_address)
            tile = tile_in(lines, one, machine)
            output = target.first_channel(one.output_address) + one.first_lane
            row = source.first_channel(one.input_address) + -one.rotation % source.lanes
            part = (slice(output, output + machine.columns), slice(row, row + len(tile)))
            whole[(*part, *_tap(step, one))] += tile.T
    return whole


def _tap(step: Step, one: Descriptor) -> tuple[int, int]:
    """Returns the position of the kernel that a descriptor multiplies by."""
    if not isinstance(step.operator, Convolution):
        return 0, 0
    padding = rows_and_columns(tuple(before for before, _ in step.operator.padding), rows=0)
    dilation = rows_and_columns(step.operator.dilation)
    return (
        (one.origin_row + padding[0]) // dilation[0],
        (one.origin_column + padding[1]) // dilation[1],
    )


def _weight_shape(lowered: LoweredProgram, step: Step) -> tuple[int, ...]:
    return lowered.program.tensors[step.tensors["weight"]].shape


def _spread(lowered: LoweredProgram, step: Step, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the program's weights, with zeros between groups and behind the last channels."""
    weight = effective_weight(lowered.program.parameters(step))
    groups = step.operator.groups if isinstance(step.operator, Convolution) else 1
    outputs, inputs = weight.shape[:2]
    whole = np.zeros(shape, dtype=np.int64)
    for output in range(outputs):
        first = output // (outputs // groups) * inputs
        whole[output, first : first + inputs] = weight[output].reshape(inputs, *shape[2:])
    return whole
