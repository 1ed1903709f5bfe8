"""The image of the weight memory: how it is written, and how a tile is read from it.

A word holds the weights of a group of rows, column by column in the low bits. In the word of a
sparse array, the number of each column's pattern lies above them.
"""

from collections.abc import Sequence

import numpy as np

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.forms.rtl.compression import positions_of
from photomask.chip.forms.rtl.descriptors import Descriptor
from photomask.chip.forms.rtl.memory_map import words_from_hex, words_to_hex

WEIGHTS_FILE = "weights.hex"


def word_bits(machine: Accelerator) -> int:
    """Returns the width of a word of the weight memory."""
    patterns = 0 if machine.sparse is None else machine.sparse.index_bits
    return machine.columns * (machine.kept * machine.weight_bits + patterns)


def weight_lines(weights: np.ndarray, patterns: np.ndarray, machine: Accelerator) -> list[str]:
    """Returns one hexadecimal number for each word.

    Args:
        weights: int64 [words, columns * rows of a group].
        patterns: int64 [words, columns].
        machine: the array that loads the words.
    """
    lines = words_to_hex(weights, machine.weight_bits)
    if machine.sparse is None:
        return lines
    digits, low = -(-word_bits(machine) // 4), weights.shape[1] * machine.weight_bits
    numbers = words_to_hex(patterns, machine.sparse.index_bits)
    return [
        f"{int(number, 16) << low | int(line, 16):0{digits}x}"
        for number, line in zip(numbers, lines, strict=True)
    ]


def tile_in(lines: Sequence[str], one: Descriptor, machine: Accelerator) -> np.ndarray:
    """Returns the weights that a descriptor multiplies by, int64 [inputs, columns].

    Args:
        lines: the words of the weight memory.
        one: a descriptor that loads weights.
        machine: the array.
    """
    words = lines[one.weight_address : one.weight_address + machine.row_groups][::-1]
    low = machine.columns * machine.kept * machine.weight_bits
    values = [f"{int(word, 16) & ((1 << low) - 1):x}" for word in words]
    slots = words_from_hex(values, machine.columns * machine.kept, machine.weight_bits, signed=True)
    slots = slots.reshape(len(words), machine.columns, machine.kept)
    if machine.sparse is None or one.dense:
        return slots.transpose(0, 2, 1).reshape(machine.rows, machine.columns)
    codes = [f"{int(word, 16) >> low:x}" for word in words]
    bits = machine.sparse.index_bits
    positions = positions_of(words_from_hex(codes, machine.columns, bits, False), machine.sparse)
    tile = np.zeros((len(words), machine.columns, machine.group), dtype=np.int64)
    np.put_along_axis(tile, positions, slots, axis=2)
    return tile.transpose(0, 2, 1).reshape(machine.sparse_inputs, machine.columns)
