"""Writes convolutions: a tile of weights for each position of the kernel."""

from photomask.chip.forms.rtl.context import RTL, Context
from photomask.chip.forms.rtl.descriptors import Descriptor, Operation, rows_and_columns
from photomask.chip.forms.rtl.vector_unit import operand
from photomask.chip.forms.rtl.weight_tiles import check_weighted_sum, tile_fields, weight_tiles
from photomask.chip.operators import Convolution
from photomask.chip.operators.weights import effective_weight


@RTL.of(Convolution)
def convolution(operator: Convolution, context: Context) -> list[Descriptor]:
    """Returns a descriptor for each weight tile and each map of the batch.

    A tile belongs to a block of outputs, a block of inputs and a tap of the kernel. The first
    descriptor of a block of outputs starts its sums with the biases, and the others continue the
    sums in memory. Tiles of zeros have no descriptor. A tile holds zeros for inputs outside an
    output's group, so a depthwise convolution has diagonal tiles.
    """
    (source, descriptors), target = operand(context, 0), context.output_place
    weight = effective_weight(context.parameters)
    check_weighted_sum(context, weight, operator.padding_value)
    shape = context.inputs[0].shape
    size, results = rows_and_columns(shape[2:]), rows_and_columns(context.output.shape[2:])
    stride, dilation = rows_and_columns(operator.stride), rows_and_columns(operator.dilation)
    padding = rows_and_columns(tuple(before for before, _ in operator.padding), rows=0)
    kernel = weight.reshape(*weight.shape[:2], *rows_and_columns(weight.shape[2:]))
    for tile in weight_tiles(context, kernel, operator.groups):
        fields = {
            "input_height": size[0],
            "input_width": size[1],
            "output_height": results[0],
            "output_width": results[1],
            "origin_row": tile.position[0] * dilation[0] - padding[0],
            "origin_column": tile.position[1] * dilation[1] - padding[1],
            "stride_row": stride[0],
            "stride_column": stride[1],
            "padding_value": operator.padding_value,
        } | tile_fields(context, tile)
        descriptors += [
            context.descriptor(
                Operation.MATRIX,
                source,
                target,
                input_address=source.block_address(tile.first_input) + number * source.inner,
                output_address=target.block_address(tile.first_output) + number * target.inner,
                **fields,
            )
            for number in range(shape[0])
        ]
    return descriptors
