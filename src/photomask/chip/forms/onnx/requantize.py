"""Writes rescaling as one node."""

import numpy as np

from photomask.chip.arithmetic import round_shift
from photomask.chip.formats import Interval
from photomask.chip.forms.onnx import functions
from photomask.chip.forms.onnx.context import ONNX, IntegerGraph
from photomask.chip.operators import Parameters, Requantize
from photomask.chip.program import Step


@ONNX.of(Requantize)
def requantize(operator: Requantize, graph: IntegerGraph, step: Step) -> None:
    """Adds one call of the function for the rounding mode."""
    kind = graph.onnx.TensorProto.INT64
    (x,), parameters = step.inputs, graph.program.parameters(step)
    wide = graph.type_of(_rescaled(operator, graph.intervals(step)[0], parameters)) == kind
    if operator.offset:
        x = graph.centred(x, -operator.offset, kind, step)
    factors = [
        graph.tensor(step.tensors[role], parameters[role], kind) for role in ("multiplier", "shift")
    ]
    graph.function(functions.shift_right())
    graph.call(
        functions.requantize(operator.rounding, wide),
        [x, *factors],
        step,
        output=step.output,
        zero_point=operator.zero_point,
        low=operator.low,
        high=operator.high,
        to=graph.edge_type(step.output),
    )


def _rescaled(operator: Requantize, x: Interval, parameters: Parameters) -> Interval:
    """Returns an interval that holds the rescaled values before the clamp, and both bounds."""
    ends = [operator.low, operator.high]
    pairs = np.stack([parameters["multiplier"].ravel(), parameters["shift"].ravel()], axis=1)
    for multiplier, shift in np.unique(pairs, axis=0).tolist():
        for end in (x.low, x.high):
            product = (end + operator.offset) * multiplier
            ends.append(round_shift(product, shift, operator.rounding) + operator.zero_point)
    return Interval.hull(*ends)
