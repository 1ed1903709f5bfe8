"""Makes descriptors of the vector unit, which move elements and compute with them on the way."""

from dataclasses import replace

import numpy as np

from photomask.chip.forms.rtl.context import Context
from photomask.chip.forms.rtl.descriptors import Descriptor, Operation
from photomask.chip.forms.rtl.element_streams import ElementStream, runs_of, stream_between
from photomask.chip.forms.rtl.memory_map import Place

IDENTITY = 0
"""The address of the parameter word with multiplier 1 and shift 0."""


def move(
    context: Context, source: Place, target: Place, stream: ElementStream, **fields: int
) -> list[Descriptor]:
    """Returns the descriptors that move a stream of elements.

    Args:
        context: the step.
        source: the place that the stream reads.
        target: the place that the stream writes.
        stream: the source and target of each element.
        **fields: what the vector unit computes on the way.
    """
    return [
        context.descriptor(
            Operation.VECTOR,
            source,
            target,
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


def broadcast(context: Context, number: int, target: Place, **fields: int) -> list[Descriptor]:
    """Returns the descriptors that move an input, broadcast to the output's shape, to a place."""
    source, numbers = context.input_places[number], context.row_major(number)
    rank = len(context.output.shape)
    aligned = numbers.reshape((1,) * (rank - numbers.ndim) + numbers.shape)
    elements = np.broadcast_to(aligned, context.output.shape)
    stream = stream_between(source, target, elements, IDENTITY)
    return move(context, source, target, stream, **fields)


def rescale(
    context: Context,
    target: Place,
    multiplier: np.ndarray,
    shift: np.ndarray,
    **fields: int,
) -> list[Descriptor]:
    """Returns the descriptors that move the first input, multiplied and shifted, to a place.

    Args:
        context: the step.
        target: the place to write; it holds the input's shape.
        multiplier: int64, broadcast to the input's shape, as is `shift`.
        shift: right shifts in bits.
        **fields: what else the vector unit computes.
    """
    source, shape = context.input_places[0], context.inputs[0].shape
    stream = stream_between(source, target, context.row_major(0), IDENTITY)
    scales = [target.words_of(np.broadcast_to(values, shape)) for values in (multiplier, shift)]
    distinct, inverse = np.unique(np.concatenate(scales, axis=1), axis=0, return_inverse=True)
    addresses = [
        context.images.scale_word(row[: context.lanes], row[context.lanes :]) for row in distinct
    ]
    words = np.array(addresses, dtype=np.int64)[inverse.reshape(-1)]
    stream = replace(stream, parameter=words[stream.target_word - target.address])
    return move(context, source, target, stream, **fields)


def operand(context: Context, number: int) -> tuple[Place, list[Descriptor]]:
    """Returns the place of an input in the layout that the step needs.

    Also returns the descriptors that make the copy, if there is one.
    """
    source, copy = context.input_places[number], context.copy_of(number)
    if copy is None:
        return source, []
    stream = stream_between(source, copy, context.row_major(number), IDENTITY)
    return copy, move(context, source, copy, stream)
