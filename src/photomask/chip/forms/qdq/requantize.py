"""Writes rescaling as QuantizeLinear and DequantizeLinear."""

import numpy as np

from photomask.chip.forms.qdq.context import QDQ, SAME, QdqGraph
from photomask.chip.operators import Requantize
from photomask.chip.program import Step
from photomask.errors import FormError


@QDQ.of(Requantize)
def requantize(operator: Requantize, graph: QdqGraph, step: Step) -> None:
    """Adds QuantizeLinear and DequantizeLinear, and a clamp before them if the codes need one."""
    (x,), y = graph.edges(step), graph.program.edges[step.output]
    scale, *others = y.scale
    if others or (x.role != "accumulator" and len(x.scale) > 1):
        raise FormError(
            "its channels have different scales, but an activation has one scale in this form"
        )
    if operator.offset != -x.zero_point or operator.zero_point != y.zero_point:
        raise FormError("its offsets differ from the zero points of its edges")
    parameters = graph.program.parameters(step)
    ratio = np.ldexp(parameters["multiplier"].astype(np.float64), -parameters["shift"])
    trailing = 0 if x.channel_axis is None else len(x.shape) - 1 - x.channel_axis
    unit = np.array(x.scale).reshape(-1, *(1,) * trailing)
    factor = ratio * scale / unit * graph.divisors.get(x.name, 1.0)
    # A small difference from 1 comes from the rounding of the multiplier. A float scale has no such
    # rounding, so the difference is ignored.
    rounding = 2 * step.relative_error + SAME
    value = graph.real(x.name)
    if not np.all(np.abs(factor - 1) <= rounding):
        value = graph.scaled(value, factor, step)
    (lowest, highest), zero_point = graph.ends(y), y.zero_point
    if operator.low == zero_point > lowest and operator.high == highest:
        value = graph.node("Relu", [value], step, "relu")
    elif operator.low > lowest or operator.high < highest:
        ends = np.array([operator.low - zero_point, operator.high - zero_point]) * scale
        constants = [
            graph.floats(end, step, label) for end, label in zip(ends, ("low", "high"), strict=True)
        ]
        value = graph.node("Clip", [value, *constants], step, "clamp")
    graph.quantize(value, y, step, "")
