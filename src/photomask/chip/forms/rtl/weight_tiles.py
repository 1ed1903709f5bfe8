"""Cuts constant weights into tiles: one per block of outputs, block of inputs and kernel tap.

A tile is ROWS input channels by COLUMNS output channels at one position of the kernel. For every
output position, its descriptor streams the input word that this kernel position reads. A tile of
zeros adds nothing to the sums, so it has no descriptor and takes no memory.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from photomask.chip.forms.rtl.context import Context
from photomask.errors import FormError


@dataclass(frozen=True)
class WeightTile:
    """The weights of one descriptor.

    Attributes:
        first_output: the output channel of column 0.
        first_input: the input channel of row 0, counted over all groups.
        position: the position in the kernel.
        weights: int64 [rows, columns].
        starts: whether the tile is the first one of its outputs, so that their sums start with it.
    """

    first_output: int
    first_input: int
    position: tuple[int, ...]
    weights: np.ndarray
    starts: bool


def weight_tiles(context: Context, weight: np.ndarray, groups: int = 1) -> Iterator[WeightTile]:
    """Yields the tiles of a layer, block of outputs by block of outputs.

    Tiles of zeros are left out. A block of outputs without any other tile has one tile of zeros,
    because its biases must still be written.

    Args:
        context: gives the rows and columns of the array.
        weight: int64 [outputs, inputs of a group, height, width].
        groups: the number of channel groups.
    """
    rows, columns = context.accelerator.rows, context.accelerator.columns
    outputs, per_group = weight.shape[:2]
    group_of = np.arange(outputs) // (outputs // groups)
    for first_output in range(0, outputs, columns):
        members = np.arange(first_output, min(first_output + columns, outputs))
        begins = group_of[members] * per_group
        low, high = int(begins.min()) // rows, (int(begins.max()) + per_group - 1) // rows
        starts = True
        for block in range(low, high + 1):
            first_input = block * rows
            # For each row and column, the number of the row's input within the column's group. Rows
            # outside the group are multiplied by zero.
            inputs = first_input + np.arange(rows)[:, None] - begins[None, :]
            reached = (inputs >= 0) & (inputs < per_group)
            for position in itertools.product(*map(range, weight.shape[2:])):
                tile = np.zeros((rows, columns), dtype=np.int64)
                taken = weight[members[None, :], np.clip(inputs, 0, per_group - 1), *position]
                tile[:, : len(members)] = np.where(reached, taken, 0)
                if tile.any():
                    yield WeightTile(first_output, first_input, position, tile, starts)
                    starts = False
        if starts:
            none = np.zeros((rows, columns), dtype=np.int64)
            centre = tuple(size // 2 for size in weight.shape[2:])
            yield WeightTile(first_output, low * rows, centre, none, starts)


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
        return fields | {"weight_address": context.images.tile(tile.weights)}
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
