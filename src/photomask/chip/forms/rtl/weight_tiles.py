"""Cuts constant weights into tiles: one per block of outputs, block of inputs and kernel tap.

A tile is ROWS input channels by COLUMNS output channels at one position of the kernel. For every
output position, its descriptor streams the input word that this kernel position reads. A tile of
zeros adds nothing to the sums, so it has no descriptor and takes no memory.

A sparse array can also take compressed tiles. They cover ROWS * M / N input channels, of which each
group of M has at most N weights in each column. Where a group has more, the tile takes more passes.
At each position of the kernel, a block of outputs is compressed if that takes fewer passes than
dense tiles. A layer whose integers keep the pattern N:M takes one pass for each compressed tile.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.forms.rtl.compression import HeldTile, compress
from photomask.chip.forms.rtl.context import Context
from photomask.errors import FormError


@dataclass(frozen=True)
class WeightTile:
    """The weights of one descriptor.

    Attributes:
        first_output: the output channel of column 0.
        first_input: the input channel of the first lane, counted over all groups.
        position: the position in the kernel.
        weights: int64 [rows, columns]; all zero if only the biases are to be written.
        patterns: int64 [groups of rows, columns] for a compressed tile, None for a dense one.
        starts: whether the tile is the first one of its outputs, so that their sums start with it.
    """

    first_output: int
    first_input: int
    position: tuple[int, ...]
    weights: np.ndarray
    patterns: np.ndarray | None
    starts: bool


def weight_tiles(context: Context, weight: np.ndarray, groups: int = 1) -> Iterator[WeightTile]:
    """Yields the tiles of a layer, block of outputs by block of outputs.

    Tiles of zeros are left out. A block of outputs without any other tile has one tile of zeros,
    because its biases must still be written.

    Args:
        context: gives the array, and the lanes of a memory word.
        weight: int64 [outputs, inputs of a group, height, width].
        groups: the number of channel groups.
    """
    machine, kernel = context.accelerator, weight.shape[2:]
    for first_output in range(0, len(weight), machine.columns):
        first_input, band = _band(context, weight, groups, first_output)
        tiles = [
            (row, tap, held)
            for tap in range(band.shape[2])
            for row, held in _passes(band[:, :, tap], machine)
        ]
        # The sort is stable, so the passes of one compressed tile stay in their order.
        tiles.sort(key=lambda tile: tile[:2])
        for number, (row, tap, held) in enumerate(tiles):
            position = tuple(int(n) for n in np.unravel_index(tap, kernel))
            yield WeightTile(
                first_output,
                first_input + row,
                position,
                held.weights,
                held.patterns,
                starts=number == 0,
            )
        if not tiles:
            none = np.zeros((machine.rows, machine.columns), dtype=np.int64)
            yield WeightTile(first_output, first_input, (0,) * len(kernel), none, None, starts=True)


def _band(
    context: Context, weight: np.ndarray, groups: int, first_output: int
) -> tuple[int, np.ndarray]:
    """Returns the weights of one block of outputs for all inputs that one of them reads.

    Returns:
        The first input, which lies in lane 0 of a memory word, and int64 [inputs, columns, taps].
        The inputs fill whole memory words. Those outside an output's group have the weight 0.
    """
    outputs, per_group = weight.shape[:2]
    members = range(first_output, min(first_output + context.accelerator.columns, outputs))
    begins = [member // (outputs // groups) * per_group for member in members]
    first = begins[0] // context.lanes * context.lanes
    words = -(-(begins[-1] + per_group - first) // context.lanes)
    taps = math.prod(weight.shape[2:])
    shape = (words * context.lanes, context.accelerator.columns, taps)
    band = np.zeros(shape, dtype=np.int64)
    for column, (member, begin) in enumerate(zip(members, begins, strict=True)):
        row = begin - first
        band[row : row + per_group, column] = weight[member].reshape(per_group, taps)
    return first, band


def _passes(matrix: np.ndarray, machine: Accelerator) -> list[tuple[int, HeldTile]]:
    """Cuts the weights of one tap, [inputs, columns], into passes, dense or compressed.

    Returns:
        For each pass the row of the matrix in which it begins, and what the array holds.
    """
    dense = [
        (row, HeldTile(matrix[row : row + machine.rows], None))
        for row in range(0, len(matrix), machine.rows)
        if matrix[row : row + machine.rows].any()
    ]
    if machine.sparse is None:
        return dense
    compressed = [
        (row, held)
        for row in range(0, len(matrix), machine.sparse_inputs)
        for held in compress(matrix[row : row + machine.sparse_inputs], machine.sparse)
    ]
    return compressed if len(compressed) < len(dense) else dense


def tile_fields(context: Context, tile: WeightTile) -> dict[str, int]:
    """Adds a tile and its biases to the images, and returns the fields with their addresses.

    A tile of zeros is not added. Its descriptor reads only padding of 0, and multiplies it by
    whatever weights the array holds.
    """
    lane = tile.first_output % context.lanes
    fields = {
        "start_from_memory": int(not tile.starts),
        "first_lane": lane,
        "last_lane": lane + context.accelerator.columns - 1,
        "rotation": -tile.first_input % context.lanes,
        "parameter_address": _biases(context, tile.first_output) if tile.starts else 0,
    }
    if tile.weights.any():
        return fields | {
            "weight_address": context.images.tile(tile.weights, tile.patterns),
            "dense": int(context.accelerator.sparse is not None and tile.patterns is None),
        }
    # Registers that were never written are unknown in a simulator with four states, and 0 times
    # unknown is unknown. The first descriptor of a program therefore loads weights in any case.
    return fields | {
        "input_height": 0,
        "padding_value": 0,
        "keep_weights": int(context.images.has_tiles),
    }


def _biases(context: Context, first_output: int) -> int:
    columns = context.accelerator.columns
    biases = context.parameters["bias"][first_output : first_output + columns]
    return context.images.bias_word(biases, first_output % context.lanes)


def check_weighted_sum(context: Context, weight: np.ndarray, padding_value: int = 0) -> None:
    """Raises an error for weights, activations or biases that do not fit the array.

    Args:
        context: the step.
        weight: int64, with zero points and group multipliers applied.
        padding_value: the value that is read outside the input.

    Raises:
        FormError: says what is too wide.
    """
    machine, edge = context.accelerator, context.inputs[0]
    limit = 1 << (machine.weight_bits - 1)
    if weight.min() < -limit or weight.max() >= limit:
        raise FormError(
            f"its weights (zero points and group multipliers applied) reach from {weight.min()} to "
            f"{weight.max()}, but the array multiplies signed {machine.weight_bits}-bit weights"
        )
    limit = 1 << machine.activation_bits
    low, high = min(edge.low, padding_value), max(edge.high, padding_value)
    if low < -limit or high >= limit:
        raise FormError(
            f"its input and padding reach from {low} to {high}, but the array multiplies "
            f"{machine.activation_bits}-bit activations"
        )
    biases = context.parameters["bias"]
    context.require_accumulators(int(biases.min()), int(biases.max()), "its bias")
