"""Writes rescaling, which the requantize unit does on the way through the vector unit."""

from photomask.chip.forms.rtl.context import RTL, Context
from photomask.chip.forms.rtl.descriptors import ROUNDINGS, Descriptor
from photomask.chip.forms.rtl.vector_unit import rescale
from photomask.chip.operators import Requantize


@RTL.of(Requantize)
def requantize(operator: Requantize, context: Context) -> list[Descriptor]:
    """Returns descriptors that take each lane's multiplier and shift from a parameter word."""
    edge, offset = context.inputs[0], operator.offset
    context.require_accumulators(edge.low + offset, edge.high + offset, "its input plus its offset")
    return rescale(
        context,
        context.output_place,
        context.parameters["multiplier"],
        context.parameters["shift"],
        rounding=ROUNDINGS.index(operator.rounding),
        offset=offset,
        zero_point=operator.zero_point,
        **context.saturation(operator.low, operator.high),
    )
