"""Products of matrices of real values."""

from photomask.chip.forms.qonnx.context import QONNX, QonnxGraph
from photomask.chip.forms.qonnx.weights import quantized_weight, real_bias
from photomask.chip.operators import Linear, Matmul
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step


@QONNX.of(Linear)
def linear(operator: Linear, graph: QonnxGraph, step: Step) -> None:
    """MatMul with the transposed weights, and Add."""
    weight, unit = quantized_weight(graph, step, transposed=True)
    codes = effective_weight(graph.program.parameters(step))
    product = graph.node("MatMul", [step.inputs[0], weight], step, "product")
    graph.finish(step, unit, "Add", [product, real_bias(graph, step, codes, unit)])


@QONNX.of(Matmul)
def matmul(operator: Matmul, graph: QonnxGraph, step: Step) -> None:
    """A product of two activations."""
    add_product("MatMul", operator.zero_points, graph, step)


def add_product(name: str, zero_points: tuple[int, int], graph: QonnxGraph, step: Step) -> None:
    """Adds a product of what lies above the zero points of two activations.

    Args:
        name: MatMul or Mul.
        zero_points: of the two factors.
        graph: takes the nodes.
        step: what they compute.
    """
    factors = [
        graph.centred(step, at, zero_point, f"centred{at}")
        for at, zero_point in enumerate(zero_points)
    ]
    graph.finish(step, graph.scale(step.inputs[0]) * graph.scale(step.inputs[1]), name, factors)
