"""Writes sums, products, clamps and tables of integers, element by element."""

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.onnx import functions
from photomask.chip.forms.onnx.context import ONNX, IntegerGraph
from photomask.chip.operators import Add, Clamp, Interpolate, Lookup, Multiply
from photomask.chip.program import Step


@ONNX.of(Add)
def add(operator: Add, graph: IntegerGraph, step: Step) -> None:
    """Adds nodes that multiply the inputs by the coefficients and sum the products."""
    values = [*graph.intervals(step), graph.interval(step), *operator.coefficients, operator.bias]
    kind = graph.type_of(Interval.hull(*values))
    total = graph.scalar(operator.bias, kind, step, "bias")
    terms = []
    for edge, coefficient in zip(step.inputs, operator.coefficients, strict=True):
        constant = graph.scalar(coefficient, kind, step, "coefficient")
        terms.append(
            graph.node("Mul", [graph.operand(edge, kind, step), constant], step, "aligned")
        )
    for term in terms[:-1]:
        total = graph.node("Add", [term, total], step, "sum")
    graph.finish(step, kind, "Add", [terms[-1], total])


@ONNX.of(Multiply)
def multiply(operator: Multiply, graph: IntegerGraph, step: Step) -> None:
    """Adds nodes that multiply two inputs without their zero points."""
    intervals, zero_points = graph.intervals(step), operator.zero_points
    factors = [x.shifted(-z) for x, z in zip(intervals, zero_points, strict=True)]
    hull = Interval.hull(*intervals, *zero_points, *factors, graph.interval(step))
    kind = graph.type_of(hull)
    centred = [
        graph.centred(edge, zero_point, kind, step)
        for edge, zero_point in zip(step.inputs, zero_points, strict=True)
    ]
    graph.finish(step, kind, "Mul", centred)


@ONNX.of(Clamp)
def clamp(operator: Clamp, graph: IntegerGraph, step: Step) -> None:
    """Adds a Clip node, or a function for int64, which ONNX Runtime clips wrongly."""
    (x,), y = graph.intervals(step), graph.interval(step)
    kind = graph.edge_type(step.inputs[0])
    if kind != graph.edge_type(step.output):
        kind = graph.type_of(x.union(y))
    value = graph.operand(step.inputs[0], kind, step)
    if kind == graph.onnx.TensorProto.INT64:
        graph.finish(step, kind, functions.clamp(), [value], low=y.low, high=y.high)
        return
    ends = [graph.scalar(getattr(y, end), kind, step, end) for end in ("low", "high")]
    graph.finish(step, kind, "Clip", [value, *ends])


@ONNX.of(Lookup)
def lookup(operator: Lookup, graph: IntegerGraph, step: Step) -> None:
    """Adds a Gather node that reads the table."""
    (x,), table = graph.intervals(step), graph.program.parameters(step)["table"]
    kind = graph.narrowest(table)
    if graph.edge_type(step.output) == graph.onnx.TensorProto.UINT8 and table.min() >= 0:
        kind = graph.edge_type(step.output) if table.max() <= 255 else kind
    index_type = graph.type_of(Interval.hull(x, operator.first))
    index = graph.centred(step.inputs[0], operator.first, index_type, step)
    graph.finish(
        step, kind, "Gather", [graph.tensor(step.tensors["table"], table, kind), index], axis=0
    )


@ONNX.of(Interpolate)
def interpolate(operator: Interpolate, graph: IntegerGraph, step: Step) -> None:
    """Adds nodes that interpolate between two entries of the table.

    Div and Mod round down, as they must, because the positions are never negative.
    """
    kind = graph.onnx.TensorProto.INT64
    table = graph.program.parameters(step)["table"]
    position = graph.centred(step.inputs[0], operator.first, kind, step)
    unit = graph.scalar(1 << operator.step_bits, kind, step, "unit")
    index = graph.node("Div", [position, unit], step, "index")
    rest = graph.node("Mod", [position, unit], step, "rest")
    starts = graph.tensor(f"{step.name}/starts", table[:-1] << operator.step_bits, kind)
    slopes = graph.tensor(f"{step.name}/slopes", np.diff(table), kind)
    start = graph.node("Gather", [starts, index], step, "start", axis=0)
    slope = graph.node("Gather", [slopes, index], step, "slope", axis=0)
    graph.finish(step, kind, "Add", [start, graph.node("Mul", [slope, rest], step, "rise")])
