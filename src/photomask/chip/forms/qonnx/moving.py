"""Writes operators that move real values, and constants."""

from photomask.chip.forms.qonnx.context import QONNX, QonnxGraph
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


@QONNX.of(Concatenate)
def concatenate(operator: Concatenate, graph: QonnxGraph, step: Step) -> None:
    """Adds a Concat node for values of one scale."""
    unit = graph.units[step.inputs[0]]
    graph.finish(step, unit, "Concat", list(step.inputs), axis=operator.axis)


@QONNX.of(Reshape)
def reshape(operator: Reshape, graph: QonnxGraph, step: Step) -> None:
    """Adds a Reshape node with the edge's own shape, for a batch of 1."""
    shape = graph.whole(step, "shape", list(graph.edge(step.output).shape))
    graph.move(step, "Reshape", [shape])


@QONNX.of(Permute)
def permute(operator: Permute, graph: QonnxGraph, step: Step) -> None:
    """Adds a Transpose node."""
    graph.move(step, "Transpose", [], perm=operator.order)


@QONNX.of(Slice)
def slice_axis(operator: Slice, graph: QonnxGraph, step: Step) -> None:
    """Adds a Slice node that slices one axis."""
    bounds = {
        "start": operator.start,
        "stop": operator.stop,
        "axis": operator.axis,
        "step": operator.step,
    }
    constants = [graph.whole(step, label, [value]) for label, value in bounds.items()]
    graph.move(step, "Slice", constants)


@QONNX.of(Gather)
def gather(operator: Gather, graph: QonnxGraph, step: Step) -> None:
    """Adds a Gather node with constant positions."""
    index = graph.program.parameters(step)["index"].tolist()
    graph.move(step, "Gather", [graph.whole(step, "index", index)], axis=operator.axis)


@QONNX.of(Pad)
def pad(operator: Pad, graph: QonnxGraph, step: Step) -> None:
    """Adds a Pad node that pads with the real value of a code."""
    x = graph.edge(step.inputs[0])
    sides = [side for at in (0, 1) for side in (pair[at] for pair in operator.amounts)]
    filler = (operator.value - x.zero_point) * graph.unit(x.name)
    graph.move(
        step, "Pad", [graph.whole(step, "amounts", sides), graph.real(step, "filler", filler)]
    )


@QONNX.of(Constant)
def constant(operator: Constant, graph: QonnxGraph, step: Step) -> None:
    """Adds real numbers, and a Quant node that gives them their scale and format."""
    edge = graph.edge(step.output)
    codes = graph.program.parameters(step)["value"]
    value = graph.real(step, "value", (codes - edge.zero_point) * edge.scale[0])
    graph.quant(step, value, edge, "ROUND")
