"""Everything but products with weights as passes of the vector unit."""

import math

import numpy as np

from photomask.chip.hardware.descriptors import ROUNDINGS, Combine, Descriptor, Operation
from photomask.chip.hardware.element_streams import (
    OUTSIDE,
    ElementStream,
    runs_of,
    stream_between,
)
from photomask.chip.hardware.memory_map import Place
from photomask.chip.hardware.pass_context import PassContext
from photomask.chip.operators import (
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    Lookup,
    MaxPool,
    Multiply,
    Pad,
    Requantize,
    Sum,
)
from photomask.errors import TargetError

IDENTITY = 0
"""The parameter word with multiplier 1 and shift 0."""


def stream_passes(
    context: PassContext, source: Place, stream: ElementStream, **fields: int
) -> list[Descriptor]:
    """Returns the passes that bring a stream of elements to the step's output.

    Args:
        context: the step.
        source: the memory that the stream reads.
        stream: where each element comes from and goes to.
        **fields: what the vector unit does on the way.
    """
    return [
        context.descriptor(
            Operation.VECTOR,
            source,
            first_lane=run.first_lane,
            last_lane=run.last_lane,
            rotation=run.rotation,
            parameter_address=run.parameter,
            origin_column=run.source,
            stride_column=run.source_step,
            output_width=run.count,
            output_address=run.target,
            output_step=run.target_step,
            **fields,
        )
        for run in runs_of(stream, context.lanes)
    ]


def _broadcast(context: PassContext, number: int, **fields: int) -> list[Descriptor]:
    """Returns the passes that bring one input, broadcast to the output's shape, to the output."""
    source = context.input_places[number]
    elements = np.broadcast_to(_aligned(context, number), context.output.shape)
    stream = stream_between(source, context.output_place, elements, IDENTITY)
    return stream_passes(context, source, stream, **fields)


def _aligned(context: PassContext, number: int) -> np.ndarray:
    """Returns an input's element numbers with as many axes as the output."""
    numbers = context.row_major(number)
    return numbers.reshape((1,) * (len(context.output.shape) - numbers.ndim) + numbers.shape)


def add_passes(context: PassContext) -> list[Descriptor]:
    """The first input begins the sum with the bias; each other one is added to it."""
    operator = context.step.operator
    if not isinstance(operator, Add):
        raise TypeError(operator)
    passes: list[Descriptor] = []
    for number, coefficient in enumerate(operator.coefficients):
        passes += _broadcast(
            context,
            number,
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
        *_broadcast(context, 0, offset=-first),
        *_broadcast(
            context,
            1,
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
    return _broadcast(context, 0, **_saturation(context, operator.low, operator.high))


def lookup_passes(context: PassContext) -> list[Descriptor]:
    """The offset turns a code into the address of its entry."""
    operator, edge = context.step.operator, context.inputs[0]
    if not isinstance(operator, Lookup):
        raise TypeError(operator)
    table = context.parameters["table"]
    context.require_accumulators(int(table.min()), int(table.max()), "its table")
    offset = context.images.table(table) - operator.first
    context.require_accumulators(edge.low + offset, edge.high + offset, "an address of its table")
    return _broadcast(context, 0, offset=offset, lookup=1)


def requantize_passes(context: PassContext) -> list[Descriptor]:
    """Multiplier and shift of every lane come from a parameter word."""
    operator, edge = context.step.operator, context.inputs[0]
    if not isinstance(operator, Requantize):
        raise TypeError(operator)
    context.require_accumulators(
        edge.low + operator.offset, edge.high + operator.offset, "its input with its offset"
    )
    source, target = context.input_places[0], context.output_place
    stream = stream_between(source, target, context.row_major(0), IDENTITY)
    words = _scale_words(context, source)
    stream = ElementStream(
        stream.source_word,
        stream.source_lane,
        stream.target_word,
        stream.target_lane,
        words[stream.source_word - source.address],
    )
    return stream_passes(
        context,
        source,
        stream,
        rounding=ROUNDINGS.index(operator.rounding),
        offset=operator.offset,
        zero_point=operator.zero_point,
        **_saturation(context, operator.low, operator.high),
    )


def _scale_words(context: PassContext, source: Place) -> np.ndarray:
    """Returns the parameter word of each word of the input."""
    sample = context.inputs[0].shape[1:]
    scales = [
        source.words_of(np.broadcast_to(context.parameters[role], sample))
        for role in ("multiplier", "shift")
    ]
    distinct, inverse = np.unique(np.concatenate(scales, axis=1), axis=0, return_inverse=True)
    addresses = [
        context.images.scale_word(row[: context.lanes], row[context.lanes :]) for row in distinct
    ]
    return np.array(addresses, dtype=np.int64)[inverse.reshape(-1)]


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
    if len(edge.shape) != len(operator.kernel) + 2:
        raise TargetError(f"pooling over {len(operator.kernel)} axes of shape {edge.shape}")
    if isinstance(operator, MaxPool):
        fields = {"combine": Combine.MAXIMUM, "start": edge.low, "padding_value": edge.low}
        dilation = _two(operator.dilation)
    else:
        fields = {"offset": -operator.zero_point, "padding_value": operator.zero_point}
        dilation = (1, 1)
        if operator.adaptive:
            return _adaptive_passes(context, operator, fields)
    kernel, stride = _two(operator.kernel), _two(operator.stride)
    padding, size = _two(operator.padding, fill=0), _two(operator.output_size)
    fields |= {
        "output_height": size[0],
        "output_width": size[1],
        "origin_row": -padding[0],
        "origin_column": -padding[1],
        "stride_row": stride[0],
        "stride_column": stride[1],
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
        "dilation_row": dilation[0],
        "dilation_column": dilation[1],
    }
    return _window_passes(context, fields, 0)


def _adaptive_passes(
    context: PassContext, operator: AveragePool, fields: dict[str, int]
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
        passes += _window_passes(context, one, position)
    return passes


def _window_passes(context: PassContext, fields: dict[str, int], position: int) -> list[Descriptor]:
    """Returns a pass for each block of channels; the first result goes to `position`."""
    source, target = context.input_places[0], context.output_place
    height, width = _two(context.inputs[0].shape[2:])
    return [
        context.descriptor(
            Operation.VECTOR,
            source,
            last_lane=context.lanes - 1,
            input_address=source.block_address(channel),
            input_height=height,
            input_width=width,
            output_address=target.block_address(channel) + position,
            **fields,
        )
        for channel in range(0, source.channels, context.lanes)
    ]


def sum_passes(context: PassContext) -> list[Descriptor]:
    """A window that is as long as the summed axes and walks along the others."""
    operator, edge = context.step.operator, context.inputs[0]
    if not isinstance(operator, Sum):
        raise TypeError(operator)
    if len(edge.shape) not in (3, 4) or 1 in operator.axes:
        raise TargetError(
            f"a sum over axes {operator.axes} of shape {edge.shape}; the design sums over the one "
            "or two axes behind the channels"
        )
    axes = _two(tuple(range(2, len(edge.shape))), fill=-1)
    sizes = _two(edge.shape[2:])
    whole = [axis in operator.axes for axis in axes]
    fields = {
        "offset": -operator.zero_point,
        "kernel_height": sizes[0] if whole[0] else 1,
        "kernel_width": sizes[1] if whole[1] else 1,
        "output_height": 1 if whole[0] else sizes[0],
        "output_width": 1 if whole[1] else sizes[1],
    }
    return _window_passes(context, fields, 0)


def move_passes(context: PassContext) -> list[Descriptor]:
    """Whatever moves, selects, repeats, joins or pads: the operator itself says what goes where.

    It runs on the numbers of its inputs' elements instead of their codes.
    """
    operator = context.step.operator
    if isinstance(operator, Concatenate):
        return _concatenation(context, operator)
    fields: dict[str, int] = {}
    if isinstance(operator, Pad):
        fields = {"padding_value": operator.value}
        context.require_accumulators(operator.value, operator.value, "its padding")
        operator = operator.model_copy(update={"value": OUTSIDE})
    elements = operator.run_numpy([context.row_major(0)], context.parameters)
    source = context.input_places[0]
    stream = stream_between(source, context.output_place, elements, IDENTITY)
    return stream_passes(context, source, stream, **fields)


def _concatenation(context: PassContext, operator: Concatenate) -> list[Descriptor]:
    """Returns the passes of one input after the other."""
    target = context.output_place
    elements = [context.row_major(number) for number in range(len(context.inputs))]
    owners = operator.run_numpy(
        [np.full(numbers.shape, number) for number, numbers in enumerate(elements)], {}
    ).reshape(-1)
    joined = operator.run_numpy(elements, {}).reshape(-1)
    passes: list[Descriptor] = []
    for number, source in enumerate(context.input_places):
        stream = stream_between(source, target, joined, IDENTITY)
        own = stream.chosen(np.flatnonzero(owners == number))
        passes += stream_passes(context, source, own)
    return passes


def _two(sizes: tuple[int, ...], fill: int = 1) -> tuple[int, int]:
    """Returns the sizes of two spatial axes; a missing first one is `fill`."""
    if len(sizes) > 2:
        raise TargetError(f"{len(sizes)} axes behind the channels; the design walks over two")
    return (fill, math.prod(sizes)) if len(sizes) < 2 else (sizes[0], sizes[1])
