"""Writes products with a constant matrix."""

import numpy as np

from photomask.chip.forms.deeploy.context import DEEPLOY, DeeployGraph, as_int8
from photomask.chip.operators import Linear, Matmul
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step
from photomask.errors import FormError


@DEEPLOY.of(Linear)
def linear(operator: Linear, graph: DeeployGraph, step: Step) -> None:
    """Adds a Gemm node for one row, with its bias."""
    parameters = graph.program.parameters(step)
    weight, shape = effective_weight(parameters), graph.program.edges[step.inputs[0]].shape
    if shape != (1, weight.shape[1]):
        raise FormError(
            f"its input has the shape {shape}, but Deeploy's Gemm takes one row of a sample"
        )
    factors = graph.tensor(f"{step.name}_weight", as_int8(weight), np.int8)
    bias = graph.tensor(f"{step.name}_bias", parameters["bias"][None], np.int32)
    graph.node(
        "Gemm", [graph.name(step.inputs[0]), factors, bias], graph.name(step.output), step,
        alpha=1.0, beta=1.0, transA=0, transB=1,
    )  # fmt: skip


DEEPLOY.refuses(Matmul, "this form writes no products of two activations")
