"""Writes products of matrices of real values."""

from photomask.chip.forms.qonnx.context import QONNX, QonnxGraph
from photomask.chip.forms.qonnx.weights import quantized_weight, real_bias
from photomask.chip.operators import Linear, Matmul
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step


@QONNX.of(Linear)
def linear(operator: Linear, graph: QonnxGraph, step: Step) -> None:
    """Adds a MatMul node with the transposed weights, and an Add node."""
    weight, unit = quantized_weight(graph, step, transposed=True)
    codes = effective_weight(graph.program.parameters(step))
    product = graph.node("MatMul", [step.inputs[0], weight], step, "product")
    graph.finish(step, unit, "Add", [product, real_bias(graph, step, codes, unit)])


@QONNX.of(Matmul)
def matmul(operator: Matmul, graph: QonnxGraph, step: Step) -> None:
    """Adds nodes that multiply two activations."""
    add_product("MatMul", operator.zero_points, graph, step)


def add_product(name: str, zero_points: tuple[int, int], graph: QonnxGraph, step: Step) -> None:
    """Adds nodes that multiply two activations without their zero points.

    Args:
        name: MatMul or Mul.
        zero_points: the zero points of the two factors.
        graph: the graph that gets the nodes.
        step: the step that the nodes compute.
    """
    factors = [
        graph.centred(step, at, zero_point, f"centred{at}")
        for at, zero_point in enumerate(zero_points)
    ]
    graph.finish(step, graph.scale(step.inputs[0]) * graph.scale(step.inputs[1]), name, factors)
