"""Writes products of matrices as MatMulInteger."""

import numpy as np

from photomask.chip.forms.onnx.context import ONNX, IntegerGraph
from photomask.chip.forms.onnx.limbs import add_up, split_activation, split_weights
from photomask.chip.operators import Linear, Matmul
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step


@ONNX.of(Linear)
def linear(operator: Linear, graph: IntegerGraph, step: Step) -> None:
    """Adds nodes that multiply by the transposed weights."""
    parameters = graph.program.parameters(step)
    second = split_weights(graph, step, effective_weight(parameters).T, 1)
    largest = max(part.magnitude for part in second)
    first = split_activation(graph, step, step.inputs[0], 0, largest)
    add_up(graph, step, "MatMulInteger", (first, second), parameters["bias"])


@ONNX.of(Matmul)
def matmul(operator: Matmul, graph: IntegerGraph, step: Step) -> None:
    """Adds nodes that multiply two activations."""
    (a, b), (zero_a, zero_b) = step.inputs, operator.zero_points
    second = split_activation(graph, step, b, zero_b, 255 * operator.terms)
    largest = max(part.magnitude for part in second) * operator.terms
    first = split_activation(graph, step, a, zero_a, largest)
    add_up(graph, step, "MatMulInteger", (first, second), np.zeros(1, dtype=np.int64))
