"""Writes products: linear layers with constant weights, and products of two activations.

For a product of two activations, the tiles are loaded from what an earlier step computed. In
`a[..., m, k] * b[..., k, n]` the array streams the words of `a`, at position m with the channels k.
The rows of a tile are the words of `b`, at position k with the channels n. Both factors lie as
rows, so nothing is transposed.

The array takes signed weights. A tile therefore holds `b - centre`. The centre is as close to the
zero point `zb` as the width of the weights allows, and a second descriptor adds the rest:

    sum (a - za) * (b - zb) = sum (a - za) * (b - centre) + (centre - zb) * sum (a - za)

The tile of the second descriptor holds `centre - zb` everywhere. Signed codes whose zero point is 0
need no second descriptor.
"""

import itertools
import math

import numpy as np

from photomask.chip.forms.rtl.context import RTL, Context
from photomask.chip.forms.rtl.descriptors import Descriptor, Operation
from photomask.chip.forms.rtl.memory_map import Place
from photomask.chip.forms.rtl.vector_unit import operand
from photomask.chip.forms.rtl.weight_tiles import check_weighted_sum, tile_fields, weight_tiles
from photomask.chip.operators import Linear, Matmul
from photomask.chip.operators.weights import effective_weight
from photomask.errors import FormError


@RTL.of(Linear)
def linear(operator: Linear, context: Context) -> list[Descriptor]:
    """Returns descriptors for a linear layer, treated as a 1×1 convolution of a map of one row."""
    (source, descriptors), target = operand(context, 0), context.output_place
    weight = effective_weight(context.parameters)
    check_weighted_sum(context, weight)
    return descriptors + [
        context.descriptor(
            Operation.MATRIX,
            source,
            target,
            input_address=source.block_address(tile.first_input),
            input_width=source.positions,
            output_width=source.positions,
            output_address=target.block_address(tile.first_output),
            **tile_fields(context, tile),
        )
        for tile in weight_tiles(context, weight[..., None, None])
    ]


@RTL.of(Matmul)
def matmul(operator: Matmul, context: Context) -> list[Descriptor]:
    """Returns descriptors for each pair of matrices, block of outputs and block of terms."""
    (first, copied), (second, also_copied) = operand(context, 0), operand(context, 1)
    first_zero, second_zero = operator.zero_points
    _check_factor(context, first_zero)
    centre = _centre(context, second_zero)
    corrections = _within(centre - second_zero, context.accelerator.weight_bits)
    rows, columns = context.accelerator.rows, context.accelerator.columns
    descriptors = [*copied, *also_copied]
    channels = context.output.shape[-1]
    for matrices in _matrices(context):
        for first_output, term in itertools.product(
            range(0, channels, columns), range(0, operator.terms, rows)
        ):
            valid = min(rows, operator.terms - term)
            descriptors.append(
                _load(context, second, matrices[1], first_output, term, valid, centre)
            )
            fields = _stream_fields(context, first, matrices, first_output, term)
            common = fields | {"offset": -first_zero}
            begins = {"start_from_memory": int(term > 0), "keep_weights": 1}
            descriptors.append(_product(context, first, common | begins))
            descriptors += [
                _product(context, first, common | {"start_from_memory": 1, "weight_address": tile})
                for tile in _constant_tiles(context, corrections, valid)
            ]
    return descriptors


def _matrices(context: Context) -> list[tuple[int, int, int]]:
    """Returns the positions of the two factors and of the output, for each matrix of the output."""
    leading = context.output.shape[:-2]
    numbers = [
        np.broadcast_to(np.arange(math.prod(edge.shape[:-2])).reshape(edge.shape[:-2]), leading)
        for edge in context.inputs
    ]
    pairs = zip(*(part.reshape(-1).tolist() for part in numbers), strict=True)
    return [(first, second, output) for output, (first, second) in enumerate(pairs)]


def _load(
    context: Context,
    source: Place,
    matrix: int,
    first_output: int,
    term: int,
    valid: int,
    centre: int,
) -> Descriptor:
    """Returns the descriptor that loads a tile, with its last row first.

    Rows without a term are 0.
    """
    rows = context.accelerator.rows
    terms = context.inputs[1].shape[-2]
    return context.descriptor(
        Operation.TILE,
        source,
        context.output_place,
        rotation=-first_output % context.lanes,
        input_address=source.block_address(first_output) + matrix * terms + term,
        input_width=valid,
        output_width=rows,
        origin_column=rows - 1,
        stride_column=-1,
        padding_value=centre,
        offset=-centre,
    )


def _stream_fields(
    context: Context,
    source: Place,
    matrices: tuple[int, int, int],
    first_output: int,
    term: int,
) -> dict[str, int]:
    """Returns the fields that all descriptors of one block of terms have in common."""
    lane, height = first_output % context.lanes, context.output.shape[-2]
    output = context.output_place.block_address(first_output) + matrices[2] * height
    return {
        "first_lane": lane,
        "last_lane": lane + context.accelerator.columns - 1,
        "rotation": -term % context.lanes,
        "input_address": source.block_address(term) + matrices[0] * height,
        "input_width": height,
        "output_width": height,
        "output_address": output,
        "parameter_address": context.images.bias_word(np.zeros(0, np.int64), 0),
        "dense": int(context.accelerator.sparse is not None),
    }


def _product(context: Context, source: Place, fields: dict[str, int]) -> Descriptor:
    return context.descriptor(Operation.MATRIX, source, context.output_place, **fields)


def _constant_tiles(context: Context, corrections: list[int], valid: int) -> list[int]:
    """Returns the addresses of tiles that hold one number in all rows that have a term."""
    shape = (context.accelerator.rows, context.accelerator.columns)
    reached = np.arange(shape[0])[:, None] < valid
    return [
        context.images.shared_tile(np.broadcast_to(np.where(reached, value, 0), shape))
        for value in corrections
    ]


def _check_factor(context: Context, zero_point: int) -> None:
    """Raises an error for a first factor that does not fit the array's activations."""
    machine, edge = context.accelerator, context.inputs[0]
    limit = 1 << machine.activation_bits
    low, high = edge.low - zero_point, edge.high - zero_point
    if low < -limit or high >= limit:
        raise FormError(
            f"its first factor minus the zero point reaches from {low} to {high}, but the array "
            f"multiplies {machine.activation_bits}-bit activations"
        )


def _centre(context: Context, zero_point: int) -> int:
    """Returns the number to subtract from the second factor so that it fits the weights."""
    bits, edge = context.accelerator.weight_bits, context.inputs[1]
    if edge.high - edge.low >= 1 << bits:
        raise FormError(
            f"its second factor reaches from {edge.low} to {edge.high}, but the array multiplies "
            f"signed {bits}-bit weights"
        )
    half = 1 << (bits - 1)
    return min(max(zero_point, edge.high - half + 1), edge.low + half)


def _within(total: int, bits: int) -> list[int]:
    """Returns signed numbers of `bits` bits that add up to a total; an empty list for 0.

    Raises:
        FormError: no such numbers exist, because a signed number of one bit is -1 or 0.
    """
    if bits == 1 and total > 0:
        raise FormError(
            "its second factor lies above its zero point, and the array's signed 1-bit weights (-1 "
            "and 0) cannot express the difference"
        )
    parts: list[int] = []
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    while total:
        parts.append(max(low, min(high, total)))
        total -= parts[-1]
    return parts
