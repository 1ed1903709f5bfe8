"""Writes softmax and norms, which the row unit computes, and embeddings, which are lookups."""

import numpy as np

from photomask.chip.forms.rtl.context import RTL, Context
from photomask.chip.forms.rtl.descriptors import Combine, Descriptor, Operation
from photomask.chip.forms.rtl.element_streams import OUTSIDE, stream_between
from photomask.chip.forms.rtl.memory_map import Place
from photomask.chip.forms.rtl.vector_unit import IDENTITY, broadcast, move, operand, rescale
from photomask.chip.operators import Embedding, Normalize, Softmax
from photomask.errors import FormError


@RTL.of(Softmax)
def softmax(operator: Softmax, context: Context) -> list[Descriptor]:
    """Returns one descriptor for all rows, and before it the copy that a mask needs.

    In the copy, the elements that the mask hides lie below all other elements.
    """
    edge, target = context.inputs[0], context.output_place
    table = context.parameters["table"]
    context.require_accumulators(0, int(table[0]), "its table")
    copy = context.copy_of(0)
    if copy is None or not _has_mask(context):
        source, descriptors = operand(context, 0)
    else:
        source, descriptors = copy, _masked(context, copy)
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
    return [*descriptors, whole]


def _has_mask(context: Context) -> bool:
    return len(context.inputs) > 1 or "mask" in context.parameters


def _masked(context: Context, copy: Place) -> list[Descriptor]:
    """Returns descriptors that copy the scores, with hidden scores below all visible ones."""
    scores, source = context.inputs[0], context.input_places[0]
    span = scores.high - scores.low + 1
    context.require_accumulators(
        scores.low - span, scores.high, "its scores, with the hidden ones lowered,"
    )
    whole = stream_between(source, copy, context.row_major(0), IDENTITY)
    if len(context.inputs) > 1:
        descriptors = [
            *_hiding(context, copy, span),
            *move(context, source, copy, whole, start_from_memory=1),
        ]
    else:
        descriptors = move(context, source, copy, whole)
    seen = context.parameters.get("mask", np.int64(1)) != 0
    hidden = np.flatnonzero(~np.broadcast_to(seen, scores.shape))
    outside = stream_between(source, copy, np.full(scores.shape, OUTSIDE), IDENTITY)
    value = scores.low - 1
    return descriptors + move(context, source, copy, outside.chosen(hidden), padding_value=value)


def _hiding(context: Context, copy: Place, span: int) -> list[Descriptor]:
    """Returns descriptors that leave 0 where the mask is not 0, and -span elsewhere.

    The mask is clamped to -1, 0 or 1 and squared, which gives 0 or 1.
    """
    every = stream_between(copy, copy, np.arange(copy.channels * copy.positions), IDENTITY)
    return [
        *broadcast(context, 1, copy, low=-1, high=1),
        *move(context, copy, copy, every, combine=Combine.MULTIPLY, start_from_memory=1),
        *move(context, copy, copy, every, offset=-1, coefficient=span),
    ]


@RTL.of(Normalize)
def normalize(operator: Normalize, context: Context) -> list[Descriptor]:
    """Returns one descriptor for all rows, and before it the copy in which channels are shifted.

    The parameter words of a block of channels are its gains and its biases.
    """
    parameters = context.parameters
    for role in ("gain", "bias"):
        values = parameters[role]
        context.require_accumulators(int(values.min()), int(values.max()), f"its {role}")
    edge, copy = context.inputs[0], context.copy_of(0)
    offset = -operator.zero_point
    if copy is not None and "channel_shift" in parameters:
        shift = parameters["channel_shift"]
        low, high = edge.low + offset, edge.high + offset
        factor = 1 << int(shift.max())
        context.require_accumulators(min(low, low * factor), max(high, high * factor), "its input")
        none = np.zeros(1, np.int64)
        descriptors = rescale(context, copy, np.int64(1) << shift, none, offset=offset)
        source, offset = copy, 0
    else:
        source, descriptors = operand(context, 0)
    target = context.output_place
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
    return [*descriptors, whole]


@RTL.of(Embedding)
def embedding(operator: Embedding, context: Context) -> list[Descriptor]:
    """Returns one descriptor for each channel.

    A token's entry lies `token * channels` words behind the channel's first entry.
    """
    if context.inputs[0].shape[0] != 1:
        raise FormError(
            "its tokens come from a reshape that changes the batch axis; the design embeds the "
            "tokens of one sample"
        )
    table, target = context.parameters["table"], context.output_place
    channels = table.shape[1]
    context.require_accumulators(int(table.min()), int(table.max()), "its table")
    first = context.images.table(table.reshape(-1))
    context.require_accumulators(first, first + table.size, "an address of its table")
    source, descriptors = operand(context, 0)
    for channel in range(channels):
        lane = channel % context.lanes
        descriptors.append(
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
    return descriptors
