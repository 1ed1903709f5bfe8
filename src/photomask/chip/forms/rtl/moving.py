"""Writes operators that move, select, repeat, join or pad elements.

The operator itself says which element goes where: it runs on the numbers of its inputs' elements
instead of their codes.
"""

import numpy as np

from photomask.chip.forms.rtl.context import RTL, Context
from photomask.chip.forms.rtl.descriptors import Descriptor
from photomask.chip.forms.rtl.element_streams import OUTSIDE, stream_between
from photomask.chip.forms.rtl.vector_unit import IDENTITY, move
from photomask.chip.operators import Concatenate, Constant, Gather, Pad, Permute, Reshape, Slice


@RTL.of(Constant)
def constant(operator: Constant, context: Context) -> list[Descriptor]:
    """Returns no descriptors, because a constant is in its memory from the start."""
    return []


@RTL.of(Gather, Permute, Reshape, Slice)
def rearrange(operator: Gather | Permute | Reshape | Slice, context: Context) -> list[Descriptor]:
    """Returns descriptors that fill each output element with one element of the input."""
    elements = operator.run_numpy([context.row_major(0)], context.parameters)
    return _filled(context, elements)


@RTL.of(Pad)
def pad(operator: Pad, context: Context) -> list[Descriptor]:
    """Returns descriptors that fill the output, with the padding value outside the input."""
    context.require_accumulators(operator.value, operator.value, "its padding")
    outside = operator.model_copy(update={"value": OUTSIDE})
    elements = outside.run_numpy([context.row_major(0)], context.parameters)
    return _filled(context, elements, padding_value=operator.value)


def _filled(context: Context, elements: np.ndarray, **fields: int) -> list[Descriptor]:
    """Returns the descriptors that fill the output with elements of the first input."""
    source, target = context.input_places[0], context.output_place
    stream = stream_between(source, target, elements, IDENTITY)
    return move(context, source, target, stream, **fields)


@RTL.of(Concatenate)
def concatenate(operator: Concatenate, context: Context) -> list[Descriptor]:
    """Returns descriptors that move one input after the other into the output."""
    target = context.output_place
    elements = [context.row_major(number) for number in range(len(context.inputs))]
    owners = operator.run_numpy(
        [np.full(numbers.shape, number) for number, numbers in enumerate(elements)], {}
    ).reshape(-1)
    joined = operator.run_numpy(elements, {}).reshape(-1)
    descriptors: list[Descriptor] = []
    for number, source in enumerate(context.input_places):
        stream = stream_between(source, target, joined, IDENTITY)
        own = stream.chosen(np.flatnonzero(owners == number))
        descriptors += move(context, source, target, own)
    return descriptors
