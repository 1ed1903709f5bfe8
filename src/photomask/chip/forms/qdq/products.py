"""Products of matrices."""

from photomask.chip.forms.qdq.context import QDQ, SAME, QdqGraph
from photomask.chip.forms.qdq.weights import quantized_bias, quantized_weight
from photomask.chip.operators import Linear, Matmul
from photomask.chip.program import Step
from photomask.errors import FormError


@QDQ.of(Linear)
def linear(operator: Linear, graph: QdqGraph, step: Step) -> None:
    """Gemm on matrices; MatMul and Add on what has more axes."""
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
    """A product of two activations, brought to the scale of the output."""
    add_product("MatMul", operator.zero_points, graph, step)


def add_product(name: str, zero_points: tuple[int, int], graph: QdqGraph, step: Step) -> None:
    """Adds a product of two activations, and what brings it to the scale of the output.

    Args:
        name: MatMul or Mul.
        zero_points: of the two factors.
        graph: takes the nodes.
        step: what they compute.

    Raises:
        FormError: the zero points are not those of the edges.
    """
    (a, b), y = graph.edges(step), graph.program.edges[step.output]
    if zero_points != (a.zero_point, b.zero_point) or y.zero_point:
        raise FormError("its zero points are not those of its edges")
    inputs = [graph.real(a.name), graph.real(b.name)]
    factor = y.scale[0] / (a.scale[0] * b.scale[0])
    if abs(factor - 1) > SAME:
        product = graph.node(name, inputs, step, "product")
        name, inputs = "Mul", [product, graph.floats(factor, step, "factor")]
    graph.finish(step, name, inputs)
