"""Writes maxima, averages and sums, as windows of the vector unit."""

from photomask.chip.forms.rtl.context import RTL, Context
from photomask.chip.forms.rtl.descriptors import (
    Combine,
    Descriptor,
    Operation,
    rows_and_columns,
)
from photomask.chip.forms.rtl.memory_map import Place
from photomask.chip.forms.rtl.vector_unit import operand
from photomask.chip.operators import AveragePool, MaxPool, Sum
from photomask.errors import FormError


@RTL.of(MaxPool)
def max_pool(operator: MaxPool, context: Context) -> list[Descriptor]:
    """Returns descriptors of maxima; positions outside the map read the input's lowest number."""
    low = context.inputs[0].low
    dilation = rows_and_columns(operator.dilation)
    fields = {
        "combine": Combine.MAXIMUM,
        "start": low,
        "padding_value": low,
        "dilation_row": dilation[0],
        "dilation_column": dilation[1],
    }
    return _pool(operator, context, fields)


@RTL.of(AveragePool)
def average_pool(operator: AveragePool, context: Context) -> list[Descriptor]:
    """Returns descriptors that sum each window.

    Adaptive windows differ in size, so each of them gets descriptors of its own.
    """
    fields = {"offset": -operator.zero_point, "padding_value": operator.zero_point}
    if operator.adaptive:
        return _adaptive_pool(operator, context, fields)
    return _pool(operator, context, fields)


def _pool(
    operator: MaxPool | AveragePool, context: Context, fields: dict[str, int]
) -> list[Descriptor]:
    """Returns descriptors for each block of channels, whose windows are evenly spaced."""
    maps = _maps(operator, context)
    source, descriptors = operand(context, 0)
    kernel, stride = rows_and_columns(operator.kernel), rows_and_columns(operator.stride)
    padding = rows_and_columns(operator.padding, rows=0)
    results = rows_and_columns(operator.output_size)
    fields = fields | {
        "output_height": results[0],
        "output_width": results[1],
        "origin_row": -padding[0],
        "origin_column": -padding[1],
        "stride_row": stride[0],
        "stride_column": stride[1],
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
    }
    size = rows_and_columns(context.inputs[0].shape[2:])
    return descriptors + _windows(context, source, fields, size, maps=maps)


def _adaptive_pool(
    operator: AveragePool, context: Context, fields: dict[str, int]
) -> list[Descriptor]:
    maps = _maps(operator, context)
    source, descriptors = operand(context, 0)
    spatial = context.inputs[0].shape[2:]
    size = rows_and_columns(spatial)
    windows = operator.windows(spatial)
    if len(windows) == 1:
        windows = [[(0, 1)], *windows]
    for position, (rows, columns) in enumerate(
        (rows, columns) for rows in windows[0] for columns in windows[1]
    ):
        one = fields | {
            "origin_row": rows[0],
            "origin_column": columns[0],
            "kernel_height": rows[1] - rows[0],
            "kernel_width": columns[1] - columns[0],
        }
        descriptors += _windows(context, source, one, size, position=position, maps=maps)
    return descriptors


def _maps(operator: MaxPool | AveragePool, context: Context) -> int:
    """Returns how many maps with all channels lie one behind the other."""
    shape = context.inputs[0].shape
    if len(shape) != len(operator.kernel) + 2:
        raise FormError(
            f"pooling over {len(operator.kernel)} axes needs an input of "
            f"{len(operator.kernel) + 2} axes (batch, channels, spatial axes), got the shape "
            f"{shape}"
        )
    return shape[0]


def _windows(
    context: Context,
    source: Place,
    fields: dict[str, int],
    size: tuple[int, int],
    *,
    position: int = 0,
    maps: int = 1,
) -> list[Descriptor]:
    """Returns a descriptor for each block of channels of each map along axis 0.

    Args:
        context: the step.
        source: the input, with its channels along the lanes.
        fields: the fields that all descriptors share.
        size: the rows and columns of the input's positions.
        position: the position of the first result in each map.
        maps: the number of maps that lie one behind the other.
    """
    target = context.output_place
    return [
        context.descriptor(
            Operation.VECTOR,
            source,
            target,
            last_lane=context.lanes - 1,
            input_address=source.block_address(channel) + number * source.positions // maps,
            input_height=size[0],
            input_width=size[1],
            output_address=target.block_address(channel)
            + number * target.positions // maps
            + position,
            **fields,
        )
        for channel in range(0, source.channels, context.lanes)
        for number in range(maps)
    ]


@RTL.of(Sum)
def sum_along_axes(operator: Sum, context: Context) -> list[Descriptor]:
    """Returns descriptors with a window over the summed axes that walks along the other axes.

    The channels lie along an axis that is not summed. Adjacent axes that are both summed, or both
    kept, count as one.
    """
    shape = context.inputs[0].shape
    channels = operator.input_lane_axis(0, shape)
    walked: list[tuple[int, bool]] = []
    for axis, size in enumerate(shape):
        if axis == channels or size == 1:
            continue
        summed = axis in operator.axes
        if walked and walked[-1][1] == summed:
            walked[-1] = (walked[-1][0] * size, summed)
        else:
            walked.append((size, summed))
    if len(walked) > 2:
        raise FormError(
            f"a sum over the axes {operator.axes} of the shape {shape} alternates between summed "
            "and kept axes too often; the design can walk over at most two such runs of axes"
        )
    rows, columns = [(1, False)] * (2 - len(walked)) + walked
    fields = {
        "offset": -operator.zero_point,
        "kernel_height": rows[0] if rows[1] else 1,
        "kernel_width": columns[0] if columns[1] else 1,
        "output_height": 1 if rows[1] else rows[0],
        "output_width": 1 if columns[1] else columns[0],
    }
    source, descriptors = operand(context, 0)
    return descriptors + _windows(context, source, fields, (rows[0], columns[0]))
