"""Sums, products, pooling, tables and rescaling as passes of the vector unit."""

import math

import numpy as np

from photomask.chip.forms.rtl.context import PassContext
from photomask.chip.forms.rtl.descriptors import ROUNDINGS, Combine, Descriptor, Operation
from photomask.chip.forms.rtl.element_streams import stream_between
from photomask.chip.forms.rtl.memory_map import Place
from photomask.chip.forms.rtl.moving import (
    IDENTITY,
    broadcast_passes,
    operand,
    rescaling_passes,
    stream_passes,
)
from photomask.chip.operators import (
    Add,
    AveragePool,
    Clamp,
    Interpolate,
    Lookup,
    MaxPool,
    Multiply,
    Requantize,
    Sum,
)
from photomask.chip.target import Rounding
from photomask.errors import TargetError


def add_passes(context: PassContext) -> list[Descriptor]:
    """The first input begins the sum with the bias; each other one is added to it."""
    operator = context.step.operator
    if not isinstance(operator, Add):
        raise TypeError(operator)
    passes: list[Descriptor] = []
    for number, coefficient in enumerate(operator.coefficients):
        passes += broadcast_passes(
            context,
            number,
            context.output_place,
            coefficient=coefficient,
            start=operator.bias if number == 0 else 0,
            start_from_memory=int(number > 0),
        )
    return passes


def multiply_passes(context: PassContext) -> list[Descriptor]:
    """The first factor is brought to the output, then multiplied by the second."""
    operator = context.step.operator
    if not isinstance(operator, Multiply):
        raise TypeError(operator)
    first, second = operator.zero_points
    return [
        *broadcast_passes(context, 0, context.output_place, offset=-first),
        *broadcast_passes(
            context,
            1,
            context.output_place,
            offset=-second,
            combine=Combine.MULTIPLY,
            start_from_memory=1,
        ),
    ]


def clamp_passes(context: PassContext) -> list[Descriptor]:
    """The saturation of the requantize unit."""
    operator = context.step.operator
    if not isinstance(operator, Clamp):
        raise TypeError(operator)
    return broadcast_passes(
        context, 0, context.output_place, **_saturation(context, operator.low, operator.high)
    )


def lookup_passes(context: PassContext) -> list[Descriptor]:
    """The offset turns a code into the address of its entry."""
    operator, edge = context.step.operator, context.inputs[0]
    if not isinstance(operator, Lookup):
        raise TypeError(operator)
    table = context.parameters["table"]
    context.require_accumulators(int(table.min()), int(table.max()), "its table")
    offset = context.images.table(table) - operator.first
    context.require_accumulators(edge.low + offset, edge.high + offset, "an address of its table")
    return broadcast_passes(context, 0, context.output_place, offset=offset, lookup=1)


def requantize_passes(context: PassContext) -> list[Descriptor]:
    """Multiplier and shift of every lane come from a parameter word."""
    operator, edge = context.step.operator, context.inputs[0]
    if not isinstance(operator, Requantize):
        raise TypeError(operator)
    context.require_accumulators(
        edge.low + operator.offset, edge.high + operator.offset, "its input with its offset"
    )
    return rescaling_passes(
        context,
        context.output_place,
        context.parameters["multiplier"],
        context.parameters["shift"],
        rounding=ROUNDINGS.index(operator.rounding),
        offset=operator.offset,
        zero_point=operator.zero_point,
        **_saturation(context, operator.low, operator.high),
    )


def interpolate_passes(context: PassContext) -> list[Descriptor]:
    """The slope of the input's entry, times what is left, plus the entry.

    What is left is the input less the whole steps up to its entry; it and then the entry lie in a
    copy.
    """
    operator, edge, copy = context.step.operator, context.inputs[0], context.copy_of(0)
    if not isinstance(operator, Interpolate) or copy is None:
        raise TypeError(operator)
    target, table, size = context.output_place, context.parameters["table"], 1 << operator.step_bits
    context.require_accumulators(edge.low - operator.first, edge.high - operator.first, "its input")
    tables = [np.diff(table), table[:-1] * size]
    for entries in tables:
        context.require_accumulators(int(entries.min()), int(entries.max()), "its table")
    slopes, starts = (context.images.table(entries) for entries in tables)
    context.require_accumulators(0, starts + len(table), "an address of its table")
    index = {"offset": -operator.first, "rounding": ROUNDINGS.index(Rounding.TRUNCATE)}
    one, shift = np.ones(1, np.int64), np.array([operator.step_bits])
    numbers = np.arange(math.prod(edge.shape))
    own = stream_between(copy, copy, numbers, IDENTITY)
    across = stream_between(copy, target, numbers, IDENTITY)
    product = {"combine": Combine.MULTIPLY, "start_from_memory": 1}
    return [
        *rescaling_passes(context, copy, one, shift, **index),
        *stream_passes(context, copy, copy, own, coefficient=-size),
        *broadcast_passes(context, 0, copy, offset=-operator.first, start_from_memory=1),
        *rescaling_passes(context, target, one, shift, **index, zero_point=slopes, lookup=1),
        *stream_passes(context, copy, target, across, **product),
        *rescaling_passes(context, copy, one, shift, **index, zero_point=starts, lookup=1),
        *stream_passes(context, copy, target, across, start_from_memory=1),
    ]


def _saturation(context: PassContext, low: int, high: int) -> dict[str, int]:
    """Returns the fields of a clamp; what no lane can hold saturates to what it can."""
    limit = 1 << (context.accelerator.accumulator_bits - 1)
    return {"low": max(low, -limit), "high": min(high, limit - 1)}


def pool_passes(context: PassContext) -> list[Descriptor]:
    """One pass for each block of channels; adaptive windows one by one."""
    operator = context.step.operator
    if not isinstance(operator, MaxPool | AveragePool):
        raise TypeError(operator)
    edge = context.inputs[0]
    source, passes = operand(context, 0)
    if len(edge.shape) != len(operator.kernel) + 2:
        raise TargetError(f"pooling over {len(operator.kernel)} axes of shape {edge.shape}")
    if isinstance(operator, MaxPool):
        fields = {"combine": Combine.MAXIMUM, "start": edge.low, "padding_value": edge.low}
        dilation = _two(operator.dilation)
    else:
        fields = {"offset": -operator.zero_point, "padding_value": operator.zero_point}
        dilation = (1, 1)
        if operator.adaptive:
            return passes + _adaptive_passes(context, source, operator, fields)
    kernel, stride = _two(operator.kernel), _two(operator.stride)
    padding, results = _two(operator.padding, fill=0), _two(operator.output_size)
    fields |= {
        "output_height": results[0],
        "output_width": results[1],
        "origin_row": -padding[0],
        "origin_column": -padding[1],
        "stride_row": stride[0],
        "stride_column": stride[1],
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
        "dilation_row": dilation[0],
        "dilation_column": dilation[1],
    }
    size = _two(edge.shape[2:])
    return passes + _window_passes(context, source, fields, size, maps=edge.shape[0])


def _adaptive_passes(
    context: PassContext, source: Place, operator: AveragePool, fields: dict[str, int]
) -> list[Descriptor]:
    spatial = context.inputs[0].shape[2:]
    windows = operator.windows(spatial)
    if len(windows) == 1:
        windows = [[(0, 1)], *windows]
    passes: list[Descriptor] = []
    for position, (rows, columns) in enumerate(
        (rows, columns) for rows in windows[0] for columns in windows[1]
    ):
        one = fields | {
            "origin_row": rows[0],
            "origin_column": columns[0],
            "kernel_height": rows[1] - rows[0],
            "kernel_width": columns[1] - columns[0],
        }
        passes += _window_passes(
            context, source, one, _two(spatial), position=position, maps=context.inputs[0].shape[0]
        )
    return passes


def _window_passes(
    context: PassContext,
    source: Place,
    fields: dict[str, int],
    size: tuple[int, int],
    *,
    position: int = 0,
    maps: int = 1,
) -> list[Descriptor]:
    """Returns a pass for each block of channels of each map along axis 0, which is mostly one.

    Args:
        context: the step.
        source: the input, its channels along the lanes.
        fields: of every pass.
        size: rows and columns of the input's positions.
        position: where the first result goes, in each map.
        maps: maps of all channels, one behind the other.
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


def sum_passes(context: PassContext) -> list[Descriptor]:
    """A window that is as long as the summed axes and walks along the others.

    The channels lie along an axis that is not summed; neighbouring axes count as one.
    """
    operator, edge = context.step.operator, context.inputs[0]
    if not isinstance(operator, Sum):
        raise TypeError(operator)
    channels = operator.input_lane_axis(0, edge.shape)
    walked: list[tuple[int, bool]] = []
    for axis, size in enumerate(edge.shape):
        if axis == channels or size == 1:
            continue
        summed = axis in operator.axes
        if walked and walked[-1][1] == summed:
            walked[-1] = (walked[-1][0] * size, summed)
        else:
            walked.append((size, summed))
    if len(walked) > 2:
        raise TargetError(
            f"a sum over axes {operator.axes} of shape {edge.shape} alternates between summed and "
            "kept axes more than the design's walk over rows and columns can"
        )
    rows, columns = [(1, False)] * (2 - len(walked)) + walked
    fields = {
        "offset": -operator.zero_point,
        "kernel_height": rows[0] if rows[1] else 1,
        "kernel_width": columns[0] if columns[1] else 1,
        "output_height": 1 if rows[1] else rows[0],
        "output_width": 1 if columns[1] else columns[0],
    }
    source, passes = operand(context, 0)
    return passes + _window_passes(context, source, fields, (rows[0], columns[0]))


def _two(sizes: tuple[int, ...], fill: int = 1) -> tuple[int, int]:
    """Returns the sizes of two spatial axes; a missing first one is `fill`."""
    if len(sizes) > 2:
        raise TargetError(f"{len(sizes)} axes behind the channels; the design walks over two")
    return (fill, math.prod(sizes)) if len(sizes) < 2 else (sizes[0], sizes[1])
