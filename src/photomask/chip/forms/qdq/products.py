"""Writes products of matrices."""

from photomask.chip.forms.qdq.context import QDQ, SAME, QdqGraph
from photomask.chip.forms.qdq.weights import quantized_bias, quantized_weight
from photomask.chip.operators import Linear, Matmul
from photomask.chip.program import Step
from photomask.errors import FormError


@QDQ.of(Linear)
def linear(operator: Linear, graph: QdqGraph, step: Step) -> None:
    """Adds a Gemm node for matrices, or MatMul and Add for inputs with more axes."""
    x = graph.program.edges[step.inputs[0]]
    weight, bias = quantized_weight(graph, step), quantized_bias(graph, step)
    if len(x.shape) == 2:
        graph.finish(step, "Gemm", [graph.real(x.name), weight, bias], transB=1)
        return
    transposed = graph.node("Transpose", [weight], step, "transposed", perm=(1, 0))
    product = graph.node("MatMul", [graph.real(x.name), transposed], step, "product")
    graph.finish(step, "Add", [product, bias])


@QDQ.of(Matmul)
def matmul(operator: Matmul, graph: QdqGraph, step: Step) -> None:
    """Adds nodes that multiply two activations and scale the product to the output's scale."""
    add_product("MatMul", operator.zero_points, graph, step)


def add_product(name: str, zero_points: tuple[int, int], graph: QdqGraph, step: Step) -> None:
    """Adds nodes that multiply two activations and scale the product to the output's scale.

    Args:
        name: MatMul or Mul.
        zero_points: the zero points of the two factors.
        graph: the graph that gets the nodes.
        step: the step that the nodes compute.

    Raises:
        FormError: the zero points differ from the zero points of the edges.
    """
    (a, b), y = graph.edges(step), graph.program.edges[step.output]
    if zero_points != (a.zero_point, b.zero_point) or y.zero_point:
        raise FormError("its zero points differ from the zero points of its edges")
    inputs = [graph.real(a.name), graph.real(b.name)]
    factor = y.scale[0] / (a.scale[0] * b.scale[0])
    if abs(factor - 1) > SAME:
        product = graph.node(name, inputs, step, "product")
        name, inputs = "Mul", [product, graph.floats(factor, step, "factor")]
    graph.finish(step, name, inputs)
