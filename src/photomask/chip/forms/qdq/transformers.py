"""Writes softmax, norms and embeddings with ONNX's own float operators on real values."""

import math

import numpy as np

from photomask.chip.forms.qdq.context import QDQ, QdqGraph
from photomask.chip.operators import Embedding, Normalize, Softmax
from photomask.chip.program import Step
from photomask.errors import FormError

HIDDEN = -1e9
"""The score of an element that a mask hides."""


@QDQ.of(Softmax)
def softmax(operator: Softmax, graph: QdqGraph, step: Step) -> None:
    """Adds a Softmax node for the real scores; the table of exponents is not used."""
    kinds, parameters = graph.onnx.TensorProto, graph.program.parameters(step)
    x, y = graph.program.edges[step.inputs[0]], graph.program.edges[step.output]
    value = graph.real(x.name)
    masks = [
        graph.node("Cast", [graph.codes(name)], step, "mask", to=kinds.BOOL)
        for name in step.inputs[1:]
    ]
    if "mask" in parameters:
        masks.append(graph.tensor(step.tensors["mask"], parameters["mask"] != 0, kinds.BOOL))
    for mask in masks:
        hidden = graph.floats(HIDDEN, step, "hidden")
        value = graph.node("Where", [mask, value, hidden], step, "visible")
    one = y.scale[0] * 2.0**operator.fraction_bits
    if not math.isclose(one, 1.0, rel_tol=1e-6):
        raise FormError(f"its results sum up to {one:.6g}, expected 1")
    graph.finish(step, "Softmax", [value], axis=-1)


@QDQ.of(Normalize)
def normalize(operator: Normalize, graph: QdqGraph, step: Step) -> None:
    """Adds a LayerNormalization node, or small operators for a root-mean-square norm."""
    parameters = graph.program.parameters(step)
    x, y = graph.program.edges[step.inputs[0]], graph.program.edges[step.output]
    if operator.zero_point != x.zero_point and not operator.centred:
        raise FormError("its zero point differs from its input's")
    if "channel_shift" in parameters:
        raise FormError(
            "its channels have different scales, which the float operator cannot express"
        )
    unit = np.array(y.scale)
    normal = math.sqrt(operator.terms) * 2.0**-operator.fraction_bits
    gain = graph.floats(parameters["gain"] * unit / normal, step, "gain")
    bias = graph.floats(parameters["bias"] * unit, step, "bias")
    power = 3 if operator.centred else 1
    epsilon = operator.epsilon * x.scale[0] ** 2 / operator.terms**power
    value = graph.real(x.name)
    if operator.centred:
        inputs = [value, gain, bias]
        graph.finish(step, "LayerNormalization", inputs, axis=-1, epsilon=epsilon)
        return
    square = graph.node("Mul", [value, value], step, "square")
    axes = graph.integers([-1], step, "axes")
    mean = graph.node("ReduceMean", [square, axes], step, "mean", keepdims=1)
    added = graph.node("Add", [mean, graph.floats(epsilon, step, "epsilon")], step, "added")
    root = graph.node("Sqrt", [added], step, "root")
    scaled = graph.node(
        "Mul", [graph.node("Div", [value, root], step, "normal"), gain], step, "gained"
    )
    graph.finish(step, "Add", [scaled, bias])


@QDQ.of(Embedding)
def embedding(operator: Embedding, graph: QdqGraph, step: Step) -> None:
    """Adds nodes that read rows of a table of codes and dequantize them."""
    kinds, table = graph.onnx.TensorProto, graph.program.parameters(step)["table"]
    y = graph.program.edges[step.output]
    kind = graph.code_type(y)
    stored = {kinds.INT4: kinds.INT8, kinds.UINT4: kinds.UINT8}.get(
        kind, kind
    )  # Gather does not support 4-bit integers
    constant = graph.tensor(step.tensors["table"], table, stored)
    rows = graph.node("Cast", [graph.codes(step.inputs[0])], step, "rows", to=kinds.INT32)
    value = graph.value_name(step, "codes")
    graph.node("Gather", [constant, rows], step, output=value, axis=0)
    graph.dequantize(value, y, stored, step)
