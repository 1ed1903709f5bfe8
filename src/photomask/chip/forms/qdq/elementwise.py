"""Writes sums, products, clamps and tables of real values, element by element."""

import numpy as np

from photomask.chip.forms.qdq.context import QDQ, SAME, QdqGraph
from photomask.chip.forms.qdq.products import add_product
from photomask.chip.operators import Add, Clamp, Interpolate, Lookup, Multiply
from photomask.chip.program import Step


@QDQ.of(Add)
def add(operator: Add, graph: QdqGraph, step: Step) -> None:
    """Adds nodes that sum the inputs.

    Coefficients that only align scales are left out, because real values need no alignment. Their
    signs are kept.
    """
    inputs, y = graph.edges(step), graph.program.edges[step.output]
    unit, offset = y.scale[0], operator.bias - y.zero_point
    terms = []
    for x, coefficient in zip(inputs, operator.coefficients, strict=True):
        offset += coefficient * x.zero_point
        wanted = x.scale[0] / unit
        aligned = abs(abs(coefficient) - wanted) <= 0.5 + SAME * wanted
        factor = 1.0 if aligned else abs(coefficient) / wanted
        terms.append((graph.scaled(graph.real(x.name), factor, step), coefficient < 0))
    if offset:
        terms.append((graph.floats(offset * unit, step, "offset"), False))
    total, negative = terms[0]
    if len(terms) == 1 or negative:
        total = graph.node("Neg" if negative else "Identity", [total], step, "first")
    for value, negative in terms[1:-1]:
        total = graph.node("Sub" if negative else "Add", [total, value], step, "sum")
    if len(terms) == 1:
        graph.finish(step, "Identity", [total])
    else:
        value, negative = terms[-1]
        graph.finish(step, "Sub" if negative else "Add", [total, value])


@QDQ.of(Multiply)
def multiply(operator: Multiply, graph: QdqGraph, step: Step) -> None:
    """Adds nodes that multiply two inputs and scale the product to the output's scale."""
    add_product("Mul", operator.zero_points, graph, step)


@QDQ.of(Clamp)
def clamp(operator: Clamp, graph: QdqGraph, step: Step) -> None:
    """Adds a Clip node with the real values of the two end codes."""
    y = graph.program.edges[step.output]
    ends = [(end - y.zero_point) * y.scale[0] for end in (y.low, y.high)]
    names = zip(ends, ("low", "high"), strict=True)
    graph.move(step, "Clip", [graph.floats(end, step, label) for end, label in names])


@QDQ.of(Lookup)
def lookup(operator: Lookup, graph: QdqGraph, step: Step) -> None:
    """Adds a table of codes between QuantizeLinear and DequantizeLinear."""
    kinds = graph.onnx.TensorProto
    y, table = graph.program.edges[step.output], graph.program.parameters(step)["table"]
    codes = graph.codes(step.inputs[0])
    index = graph.node("Cast", [codes], step, "index", to=kinds.INT32)
    first = graph.tensor(f"{step.name}/first", np.array(operator.first), kinds.INT32)
    position = graph.node("Sub", [index, first], step, "position")
    kind = graph.code_type(y)
    # Gather does not support tables of 4-bit integers.
    stored = {kinds.INT4: kinds.INT8, kinds.UINT4: kinds.UINT8}.get(kind, kind)
    constant = graph.tensor(step.tensors["table"], table, stored)
    value = graph.value_name(step, "codes")
    graph.node("Gather", [constant, position], step, output=value, axis=0)
    graph.dequantize(value, y, stored, step)


@QDQ.of(Interpolate)
def interpolate(operator: Interpolate, graph: QdqGraph, step: Step) -> None:
    """Adds a table of real numbers, with every point of the lines and the end of the last line."""
    kinds = graph.onnx.TensorProto
    x, y = step.inputs[0], graph.program.edges[step.output]
    parameters = graph.program.parameters(step)
    table = parameters["table"]
    codes = operator.first + np.arange(len(table) - 1 << operator.step_bits)
    units = operator.run_numpy([codes], parameters)
    points = np.append(units, table[-1] << operator.step_bits) * y.scale[0]
    index = graph.node("Cast", [graph.codes(x)], step, "index", to=kinds.INT32)
    first = graph.tensor(f"{step.name}/first", np.array(operator.first), kinds.INT32)
    position = graph.node("Sub", [index, first], step, "position")
    graph.finish(step, "Gather", [graph.floats(points, step, "points"), position], axis=0)
