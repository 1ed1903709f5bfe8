"""Writes sums, products and functions of each element, which the vector unit computes itself."""

import math

import numpy as np

from photomask.chip.forms.rtl.context import RTL, Context
from photomask.chip.forms.rtl.descriptors import ROUNDINGS, Combine, Descriptor
from photomask.chip.forms.rtl.element_streams import stream_between
from photomask.chip.forms.rtl.vector_unit import IDENTITY, broadcast, move, rescale
from photomask.chip.operators import Add, Clamp, Interpolate, Lookup, Multiply
from photomask.chip.target import Rounding


@RTL.of(Add)
def add(operator: Add, context: Context) -> list[Descriptor]:
    """Returns descriptors that add the inputs one by one; the first sum starts with the bias."""
    descriptors: list[Descriptor] = []
    for number, coefficient in enumerate(operator.coefficients):
        descriptors += broadcast(
            context,
            number,
            context.output_place,
            coefficient=coefficient,
            start=operator.bias if number == 0 else 0,
            start_from_memory=int(number > 0),
        )
    return descriptors


@RTL.of(Multiply)
def multiply(operator: Multiply, context: Context) -> list[Descriptor]:
    """Returns descriptors that copy the first factor and multiply the copy by the second."""
    first, second = operator.zero_points
    return [
        *broadcast(context, 0, context.output_place, offset=-first),
        *broadcast(
            context,
            1,
            context.output_place,
            offset=-second,
            combine=Combine.MULTIPLY,
            start_from_memory=1,
        ),
    ]


@RTL.of(Clamp)
def clamp(operator: Clamp, context: Context) -> list[Descriptor]:
    """Returns descriptors that clamp with the saturation of the requantize unit."""
    return broadcast(
        context, 0, context.output_place, **context.saturation(operator.low, operator.high)
    )


@RTL.of(Lookup)
def lookup(operator: Lookup, context: Context) -> list[Descriptor]:
    """Returns descriptors that replace each code by its table entry.

    An offset turns the code into the address of the entry.
    """
    edge, table = context.inputs[0], context.parameters["table"]
    context.require_accumulators(int(table.min()), int(table.max()), "its table")
    offset = context.images.table(table) - operator.first
    context.require_accumulators(edge.low + offset, edge.high + offset, "an address of its table")
    return broadcast(context, 0, context.output_place, offset=offset, lookup=1)


@RTL.of(Interpolate)
def interpolate(operator: Interpolate, context: Context) -> list[Descriptor]:
    """Returns descriptors that interpolate between two entries of the table.

    The result is the slope at the input's entry, times the remainder, plus the entry. The remainder
    is the distance of the input from the start of its entry. A copy holds first the remainder and
    then the entry.
    """
    edge, target = context.inputs[0], context.output_place
    copy = context.copies[context.step.name, 0]
    table, size = context.parameters["table"], 1 << operator.step_bits
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
        *rescale(context, copy, one, shift, **index),
        *move(context, copy, copy, own, coefficient=-size),
        *broadcast(context, 0, copy, offset=-operator.first, start_from_memory=1),
        *rescale(context, target, one, shift, **index, zero_point=slopes, lookup=1),
        *move(context, copy, target, across, **product),
        *rescale(context, copy, one, shift, **index, zero_point=starts, lookup=1),
        *move(context, copy, target, across, start_from_memory=1),
    ]
