"""Writes sums, products, clamps and tables of real values, element by element."""

import numpy as np

from photomask.chip.forms.qonnx.context import QONNX, QonnxGraph
from photomask.chip.forms.qonnx.products import add_product
from photomask.chip.operators import Add, Clamp, Interpolate, Lookup, Multiply
from photomask.chip.program import Step


@QONNX.of(Add)
def add(operator: Add, graph: QonnxGraph, step: Step) -> None:
    """Adds nodes that sum the inputs.

    Real values need no alignment of their scales, so usually only the sign of a coefficient
    remains.
    """
    unit = graph.edge(step.output).scale[0]
    constant = operator.bias + sum(
        coefficient * graph.edge(name).zero_point
        for coefficient, name in zip(operator.coefficients, step.inputs, strict=True)
    )
    terms = []
    for at, (coefficient, name) in enumerate(zip(operator.coefficients, step.inputs, strict=True)):
        factor = coefficient * unit / graph.scale(name)
        terms.append((graph.scaled(step, name, np.array(abs(factor)), f"term{at}"), factor < 0))
    terms.sort(key=lambda term: term[1])
    if constant or len(terms) == 1:
        terms.append((graph.real(step, "constant", constant * unit), False))
    total, negative = terms[0]
    if negative:
        total = graph.node("Neg", [total], step, "negative")
    for at, (term, subtracted) in enumerate(terms[1:-1], start=1):
        total = graph.node("Sub" if subtracted else "Add", [total, term], step, f"sum{at}")
    last, subtracted = terms[-1]
    graph.finish(step, unit, "Sub" if subtracted else "Add", [total, last])


@QONNX.of(Lookup)
def lookup(operator: Lookup, graph: QonnxGraph, step: Step) -> None:
    """Adds nodes that compute codes and look up real numbers, and a Quant node behind them."""
    x, y = graph.edge(step.inputs[0]), graph.edge(step.output)
    divided = graph.node(
        "Div", [x.name, graph.real(step, "input_scale", graph.units[x.name])], step, "divided"
    )
    first = graph.real(step, "first", x.zero_point - operator.first)
    position = graph.node("Add", [divided, first], step, "position")
    rounded = graph.node("Round", [position], step, "rounded")
    index = graph.node("Cast", [rounded], step, "index", to=graph.onnx.TensorProto.INT64)
    table = (graph.program.parameters(step)["table"] - y.zero_point) * y.scale[0]
    found = graph.node("Gather", [graph.real(step, "table", table), index], step, "found", axis=0)
    graph.quant(step, found, y, "ROUND")


@QONNX.of(Multiply)
def multiply(operator: Multiply, graph: QonnxGraph, step: Step) -> None:
    """Adds nodes that multiply two inputs without their zero points."""
    add_product("Mul", operator.zero_points, graph, step)


@QONNX.of(Clamp)
def clamp(operator: Clamp, graph: QonnxGraph, step: Step) -> None:
    """Adds a Clip node with the real values of two codes."""
    x = graph.edge(step.inputs[0])
    ends = [
        graph.real(step, label, (code - x.zero_point) * graph.unit(x.name))
        for label, code in (("low", operator.low), ("high", operator.high))
    ]
    graph.move(step, "Clip", ends)


QONNX.refuses(
    Interpolate,
    "QONNX has only whole tables and does not interpolate between their entries; choose a target "
    "that has room for whole tables",
)
