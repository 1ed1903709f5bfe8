"""Writes operators that move integers, and constants."""

from photomask.chip.forms.onnx.context import ONNX, IntegerGraph
from photomask.chip.operators import (
    Concatenate,
    Constant,
    Gather,
    Pad,
    Permute,
    Reshape,
    Slice,
)
from photomask.chip.program import Step


@ONNX.of(Concatenate)
def concatenate(operator: Concatenate, graph: IntegerGraph, step: Step) -> None:
    """Adds a Concat node; inputs that do not grow with the batch are repeated first."""
    kind = graph.edge_type(step.output)
    parts = [graph.operand(edge, kind, step) for edge in step.inputs]
    growing = [position for position, edge in enumerate(step.inputs) if graph.grows(edge)]
    if growing and len(growing) < len(parts):
        batch = graph.node("Shape", [parts[growing[0]]], step, "batch", start=0, end=1)
        rank = len(graph.program.edges[step.output].shape)
        ones = graph.vector([1] * (rank - 1), step, "ones")
        repeated = graph.node("Concat", [batch, ones], step, "repetitions", axis=0)
        for position in range(len(parts)):
            if position not in growing:
                inputs = [parts[position], repeated]
                parts[position] = graph.node("Expand", inputs, step, "repeated")
    graph.finish(step, kind, "Concat", parts, axis=operator.axis)


@ONNX.of(Constant)
def constant(operator: Constant, graph: IntegerGraph, step: Step) -> None:
    """Adds the constant as an initializer."""
    kind = graph.edge_type(step.output)
    value = graph.program.parameters(step)["value"]
    graph.finish(step, kind, "Identity", [graph.tensor(step.tensors["value"], value, kind)])


@ONNX.of(Reshape)
def reshape(operator: Reshape, graph: IntegerGraph, step: Step) -> None:
    """Adds a Reshape node that reshapes each sample."""
    shape = graph.vector([-1, *operator.shape], step, "shape")
    graph.finish(step, graph.edge_type(step.inputs[0]), "Reshape", [step.inputs[0], shape])


@ONNX.of(Permute)
def permute(operator: Permute, graph: IntegerGraph, step: Step) -> None:
    """Adds a Transpose node."""
    (x,) = step.inputs
    graph.finish(step, graph.edge_type(x), "Transpose", [x], perm=operator.order)


@ONNX.of(Slice)
def slice_axis(operator: Slice, graph: IntegerGraph, step: Step) -> None:
    """Adds a Slice node that slices one axis."""
    bounds = {
        "start": operator.start,
        "stop": operator.stop,
        "axis": operator.axis,
        "step": operator.step,
    }
    constants = [graph.vector([value], step, label) for label, value in bounds.items()]
    (x,) = step.inputs
    graph.finish(step, graph.edge_type(x), "Slice", [x, *constants])


@ONNX.of(Pad)
def pad(operator: Pad, graph: IntegerGraph, step: Step) -> None:
    """Adds a Pad node that pads with a code."""
    kind = graph.edge_type(step.output)
    x = graph.operand(step.inputs[0], kind, step)
    amounts = [amount for side in zip(*operator.amounts, strict=True) for amount in side]
    value = graph.scalar(operator.value, kind, step, "value")
    graph.finish(step, kind, "Pad", [x, graph.vector(amounts, step, "amounts"), value])


@ONNX.of(Gather)
def gather(operator: Gather, graph: IntegerGraph, step: Step) -> None:
    """Adds a Gather node with constant positions."""
    (x,), index = step.inputs, graph.program.parameters(step)["index"]
    constant = graph.tensor(step.tensors["index"], index, graph.onnx.TensorProto.INT64)
    graph.finish(step, graph.edge_type(x), "Gather", [x, constant], axis=operator.axis)
