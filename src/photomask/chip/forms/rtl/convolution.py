"""Products as passes of the array: one for each tile of weights.

A tile is ROWS input channels by COLUMNS output channels at one position of the kernel. Its pass
streams, for every output position, the input word that this kernel position reads. The tiles of a
product of two activations come from the second one, in passes of their own.
"""

import itertools

import numpy as np

from photomask.chip.forms.rtl.context import PassContext
from photomask.chip.forms.rtl.descriptors import Descriptor, Operation
from photomask.chip.forms.rtl.moving import operand
from photomask.chip.operators import Convolution, Linear
from photomask.chip.operators.weights import effective_weight
from photomask.errors import TargetError


def convolution_passes(context: PassContext) -> list[Descriptor]:
    """One pass for each block of outputs, block of inputs in its groups, kernel position and map.

    The first pass of a block of outputs begins with the biases, the others with the sums so far.
    Tiles hold zeros where an output's group does not reach, so depthwise is a diagonal tile.
    """
    operator = context.step.operator
    if not isinstance(operator, Convolution):
        raise TypeError(operator)
    (source, passes), target = operand(context, 0), context.output_place
    weight = effective_weight(context.parameters)
    _check_operands(context, weight, operator.padding_value)
    spatial_in, spatial_out = context.inputs[0].shape[2:], context.output.shape[2:]
    (height, width), (out_height, out_width) = _two(spatial_in), _two(spatial_out)
    stride, dilation = _two(operator.stride), _two(operator.dilation)
    padding = _two(tuple(before for before, _ in operator.padding), fill=0)
    kernel = weight.reshape(*weight.shape[:2], *_two(weight.shape[2:]))
    for first_output, first_input, position, tile, start in _tiles(
        context, kernel, operator.groups
    ):
        weights = context.images.tile(tile)
        biases = _biases(context, first_output) if start else 0
        passes += [
            context.descriptor(
                Operation.MATRIX,
                source,
                target,
                start_from_memory=int(not start),
                first_lane=first_output % context.lanes,
                last_lane=first_output % context.lanes + context.accelerator.columns - 1,
                rotation=-first_input % context.lanes,
                input_address=source.block_address(first_input) + number * source.inner,
                input_height=height,
                input_width=width,
                output_height=out_height,
                output_width=out_width,
                origin_row=position[0] * dilation[0] - padding[0],
                origin_column=position[1] * dilation[1] - padding[1],
                stride_row=stride[0],
                stride_column=stride[1],
                padding_value=operator.padding_value,
                output_address=target.block_address(first_output) + number * target.inner,
                weight_address=weights,
                parameter_address=biases,
            )
            for number in range(context.inputs[0].shape[0])
        ]
    return passes


def linear_passes(context: PassContext) -> list[Descriptor]:
    """A linear layer is a 1×1 convolution of a map that is one row."""
    operator = context.step.operator
    if not isinstance(operator, Linear):
        raise TypeError(operator)
    (source, passes), target = operand(context, 0), context.output_place
    weight = effective_weight(context.parameters)
    _check_operands(context, weight, 0)
    return passes + [
        context.descriptor(
            Operation.MATRIX,
            source,
            target,
            start_from_memory=int(not start),
            first_lane=first_output % context.lanes,
            last_lane=first_output % context.lanes + context.accelerator.columns - 1,
            rotation=-first_input % context.lanes,
            input_address=source.block_address(first_input),
            input_width=source.positions,
            output_width=source.positions,
            output_address=target.block_address(first_output),
            weight_address=context.images.tile(tile),
            parameter_address=_biases(context, first_output) if start else 0,
        )
        for first_output, first_input, _, tile, start in _tiles(context, weight[..., None, None], 1)
    ]


def _tiles(context: PassContext, weight: np.ndarray, groups: int):
    """Yields first output, first input, kernel position, weights, and whether it starts a sum.

    Args:
        context: rows and columns.
        weight: [outputs, inputs of a group, height, width].
        groups: groups of channels.
    """
    rows, columns = context.accelerator.rows, context.accelerator.columns
    outputs, per_group = weight.shape[:2]
    group_of = np.arange(outputs) // (outputs // groups)
    for first_output in range(0, outputs, columns):
        members = np.arange(first_output, min(first_output + columns, outputs))
        begins = group_of[members] * per_group
        low, high = int(begins.min()) // rows, (int(begins.max()) + per_group - 1) // rows
        start = True
        for block in range(low, high + 1):
            first_input = block * rows
            # Which input of its group each row is to each column; others multiply by zero.
            inputs = first_input + np.arange(rows)[:, None] - begins[None, :]
            reached = (inputs >= 0) & (inputs < per_group)
            for position in itertools.product(*map(range, weight.shape[2:])):
                tile = np.zeros((rows, columns), dtype=np.int64)
                taken = weight[members[None, :], np.clip(inputs, 0, per_group - 1), *position]
                tile[:, : len(members)] = np.where(reached, taken, 0)
                yield first_output, first_input, position, tile, start
                start = False


def _biases(context: PassContext, first_output: int) -> int:
    columns = context.accelerator.columns
    biases = context.parameters["bias"][first_output : first_output + columns]
    return context.images.bias_word(biases, first_output % context.lanes)


def _check_operands(context: PassContext, weight: np.ndarray, padding_value: int) -> None:
    """Refuses weights and activations that the array's multipliers cannot take."""
    machine, edge = context.accelerator, context.inputs[0]
    limit = 1 << (machine.weight_bits - 1)
    if weight.min() < -limit or weight.max() >= limit:
        raise TargetError(
            f"its weights (zero points and group multipliers applied) reach from {weight.min()} to "
            f"{weight.max()}; the array multiplies signed {machine.weight_bits}-bit weights"
        )
    limit = 1 << machine.activation_bits
    low, high = min(edge.low, padding_value), max(edge.high, padding_value)
    if low < -limit or high >= limit:
        raise TargetError(
            f"its input and padding reach from {low} to {high}; the array multiplies "
            f"{machine.activation_bits}-bit activations"
        )
    biases = context.parameters["bias"]
    context.require_accumulators(int(biases.min()), int(biases.max()), "its bias")


def _two(sizes: tuple[int, ...], fill: int = 1) -> tuple[int, int]:
    """Returns the sizes of two spatial axes; a missing first one is `fill`."""
    return (fill, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
