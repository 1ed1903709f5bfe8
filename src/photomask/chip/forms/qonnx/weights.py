"""Writes weights with a Quant node behind each, and real biases."""

import numpy as np

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.forms.qonnx.context import QonnxGraph
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step


def quantized_weight(
    graph: QonnxGraph, step: Step, transposed: bool = False
) -> tuple[str, np.ndarray]:
    """Returns the quantized weights, and the real value of one unit of the sum, [O]."""
    parameters = graph.program.parameters(step)
    codes = effective_weight(parameters)
    format = graph.program.formats[step.tensors["weight"]]
    if len(parameters) > 2:
        # With zero points and group multipliers applied, the weights need another number of bits.
        format = IntFormat.holding(Interval(int(codes.min()), int(codes.max())))
    unit = np.broadcast_to(np.array(graph.edge(step.output).scale), codes.shape[:1])
    scale = unit / graph.scale(step.inputs[0])
    if transposed:
        return graph.quantized_constant(step, "weight", codes.T, scale, format), unit
    aligned = scale.reshape(-1, *(1,) * (codes.ndim - 1))
    return graph.quantized_constant(step, "weight", codes, aligned, format), unit


def real_bias(graph: QonnxGraph, step: Step, codes: np.ndarray, unit: np.ndarray) -> str:
    """Adds real biases.

    A program folds the input's zero point into the bias. This function takes it out again, because
    real inputs have no zero point.
    """
    share = graph.edge(step.inputs[0]).zero_point * codes.reshape(len(codes), -1).sum(axis=1)
    return graph.real(step, "bias", (graph.program.parameters(step)["bias"] + share) * unit)
