"""Writes rescaling as a Quant node."""

import numpy as np

from photomask.chip.forms.qonnx.context import QONNX, ROUNDING_MODES, QonnxGraph
from photomask.chip.operators import Requantize
from photomask.chip.program import Step
from photomask.chip.target import Rounding
from photomask.errors import FormError


@QONNX.of(Requantize)
def requantize(operator: Requantize, graph: QonnxGraph, step: Step) -> None:
    """Adds a division by a float32 scale, a clamp if the codes need one, and a Quant node."""
    x, y = graph.edge(step.inputs[0]), graph.edge(step.output)
    if operator.zero_point != y.zero_point:
        raise FormError(
            f"its zero point is {operator.zero_point}, but its output edge has {y.zero_point}"
        )
    parameters = graph.program.parameters(step)
    ratio = np.ldexp(parameters["multiplier"].astype(np.float64), -parameters["shift"])
    value = graph.centred(step, 0, -operator.offset)
    value = graph.scaled(step, value, ratio[None] * y.scale[0] / graph.units[x.name])
    low, high = operator.low, operator.high
    if low > y.format.low + y.format.signed or high < y.format.high:
        value = _clipped(graph, step, value, low, high)
    mode = ROUNDING_MODES.get(operator.rounding)
    multiplier = parameters["multiplier"]
    if mode is None and np.any(multiplier & (multiplier - 1)):
        # A value exactly between two codes is common only if the target rescales by shifts alone,
        # so the treatment of ties does not matter here.
        mode = ROUNDING_MODES[Rounding.HALF_EVEN]
    if mode is None and not y.format.signed and not operator.zero_point:
        mode = ROUNDING_MODES[Rounding.HALF_AWAY]
    if mode is None:
        half = graph.real(step, "half", y.scale[0] / 2)
        value = graph.node("Add", [value, half], step, "half_up")
        mode = "FLOOR"
    graph.quant(step, value, y, mode)


def _clipped(graph: QonnxGraph, step: Step, value: str, low: int, high: int) -> str:
    """Returns the value clamped to the real values of two codes, with a ReLU if possible."""
    y = graph.edge(step.output)
    if low == y.zero_point and high == y.format.high:
        return graph.node("Relu", [value], step, "relu")
    bounds = [
        graph.real(step, label, (code - y.zero_point) * y.scale[0])
        for label, code in (("low", low), ("high", high))
    ]
    return graph.node("Clip", [value, *bounds], step, "clipped")
