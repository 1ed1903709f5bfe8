"""Softmax, norms and embeddings as passes."""

import numpy as np

from photomask.chip.forms.rtl.context import PassContext
from photomask.chip.forms.rtl.descriptors import Combine, Descriptor, Operation
from photomask.chip.forms.rtl.element_streams import OUTSIDE, stream_between
from photomask.chip.forms.rtl.memory_map import Place
from photomask.chip.forms.rtl.moving import (
    IDENTITY,
    broadcast_passes,
    operand,
    rescaling_passes,
    stream_passes,
)
from photomask.chip.operators import Embedding, Normalize, Softmax
from photomask.errors import TargetError


def softmax_passes(context: PassContext) -> list[Descriptor]:
    """One pass over all rows; where a mask hides elements, a copy with those below all others."""
    operator, edge, target = context.step.operator, context.inputs[0], context.output_place
    if not isinstance(operator, Softmax):
        raise TypeError(operator)
    table = context.parameters["table"]
    context.require_accumulators(0, int(table[0]), "its table")
    if context.copy_of(0) is None or not _has_mask(context):
        source, passes = operand(context, 0)
    else:
        source, passes = _masked(context)
    whole = context.descriptor(
        Operation.SOFTMAX,
        source,
        target,
        input_address=source.address,
        input_width=source.positions,
        output_width=source.positions,
        output_address=target.address,
        kernel_width=edge.shape[-1],
        parameter_address=context.images.table(table),
        reciprocal_bits=operator.reciprocal_bits,
        fraction_bits=operator.fraction_bits,
        low=edge.low,
        high=len(table) - 1,
    )
    return [*passes, whole]


def _has_mask(context: PassContext) -> bool:
    return len(context.inputs) > 1 or "mask" in context.parameters


def _masked(context: PassContext) -> tuple[Place, list[Descriptor]]:
    """Returns a copy of the scores, those that a mask hides below all that are seen."""
    scores, source, copy = context.inputs[0], context.input_places[0], context.copy_of(0)
    if copy is None:
        raise TypeError("a masked softmax works on a copy")
    span = scores.high - scores.low + 1
    context.require_accumulators(scores.low - span, scores.high, "its scores, some hidden,")
    whole = stream_between(source, copy, context.row_major(0), IDENTITY)
    if len(context.inputs) > 1:
        passes = [
            *_hiding_passes(context, copy, span),
            *stream_passes(context, source, copy, whole, start_from_memory=1),
        ]
    else:
        passes = stream_passes(context, source, copy, whole)
    seen = context.parameters.get("mask", np.int64(1)) != 0
    hidden = np.flatnonzero(~np.broadcast_to(seen, scores.shape))
    outside = stream_between(source, copy, np.full(scores.shape, OUTSIDE), IDENTITY)
    value = scores.low - 1
    passes += stream_passes(context, source, copy, outside.chosen(hidden), padding_value=value)
    return copy, passes


def _hiding_passes(context: PassContext, copy: Place, span: int) -> list[Descriptor]:
    """Returns passes that leave 0 where the mask is not 0, else -span.

    The mask is clamped to -1, 0 or 1 and squared, which leaves 0 or 1.
    """
    every = stream_between(copy, copy, np.arange(copy.channels * copy.positions), IDENTITY)
    return [
        *broadcast_passes(context, 1, copy, low=-1, high=1),
        *stream_passes(context, copy, copy, every, combine=Combine.MULTIPLY, start_from_memory=1),
        *stream_passes(context, copy, copy, every, offset=-1, coefficient=span),
    ]


def normalize_passes(context: PassContext) -> list[Descriptor]:
    """One pass over all rows, with shifts of channels in a copy.

    The parameter words of a block of channels are its gains and its biases.
    """
    operator, parameters = context.step.operator, context.parameters
    if not isinstance(operator, Normalize):
        raise TypeError(operator)
    for role in ("gain", "bias"):
        values = parameters[role]
        context.require_accumulators(int(values.min()), int(values.max()), f"its {role}")
    offset, copy, target = -operator.zero_point, context.copy_of(0), context.output_place
    edge = context.inputs[0]
    if copy is not None and "channel_shift" in parameters:
        shift = parameters["channel_shift"]
        low, high = edge.low + offset, edge.high + offset
        factor = 1 << int(shift.max())
        context.require_accumulators(min(low, low * factor), max(high, high * factor), "its input")
        none = np.zeros(1, np.int64)
        passes = rescaling_passes(context, copy, np.int64(1) << shift, none, offset=offset)
        source, offset = copy, 0
    else:
        source, passes = operand(context, 0)
    whole = context.descriptor(
        Operation.NORMALIZE,
        source,
        target,
        input_address=source.address,
        input_width=source.positions,
        output_width=source.positions,
        output_address=target.address,
        kernel_width=operator.terms,
        parameter_address=context.images.channel_words(parameters["gain"], parameters["bias"]),
        fraction_bits=operator.fraction_bits,
        centred=int(operator.centred),
        offset=offset,
        coefficient=operator.terms if operator.centred else 1,
        start=operator.epsilon,
    )
    return [*passes, whole]


def embedding_passes(context: PassContext) -> list[Descriptor]:
    """One pass for each channel: a token's entry lies `channels` times the token further on."""
    if not isinstance(context.step.operator, Embedding):
        raise TypeError(context.step.operator)
    if context.inputs[0].shape[0] != 1:
        raise TargetError(
            "tokens behind a reshape of the batch; the design embeds those of a sample"
        )
    table, target = context.parameters["table"], context.output_place
    channels = table.shape[1]
    context.require_accumulators(int(table.min()), int(table.max()), "its table")
    first = context.images.table(table.reshape(-1))
    context.require_accumulators(first, first + table.size, "an address of its table")
    source, passes = operand(context, 0)
    for channel in range(channels):
        lane = channel % context.lanes
        passes.append(
            context.descriptor(
                Operation.VECTOR,
                source,
                target,
                first_lane=lane,
                last_lane=lane,
                rotation=lane,
                input_address=source.address,
                output_width=source.positions,
                output_address=target.block_address(channel),
                coefficient=channels,
                start=first + channel,
                lookup=1,
            )
        )
    return passes
