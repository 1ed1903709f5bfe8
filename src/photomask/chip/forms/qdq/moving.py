"""Writes operators that move real values, and constants."""

from photomask.chip.forms.qdq.context import QDQ, QdqGraph
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
from photomask.errors import FormError


@QDQ.of(Constant)
def constant(operator: Constant, graph: QdqGraph, step: Step) -> None:
    """Adds the codes of the constant, and a DequantizeLinear node behind them."""
    y, value = graph.program.edges[step.output], graph.program.parameters(step)["value"]
    kind = graph.code_type(y)
    graph.dequantize(graph.tensor(step.tensors["value"], value, kind), y, kind, step)


@QDQ.of(Concatenate)
def concatenate(operator: Concatenate, graph: QdqGraph, step: Step) -> None:
    """Adds a Concat node for values of one scale."""
    if len({graph.grows(name) for name in step.inputs}) > 1:
        raise FormError("it repeats a constant for every sample, which Concat cannot do")
    graph.move(step, "Concat", [], axis=operator.axis)


@QDQ.of(Reshape)
def reshape(operator: Reshape, graph: QdqGraph, step: Step) -> None:
    """Adds a Reshape node that reshapes each sample."""
    graph.move(step, "Reshape", [graph.integers([-1, *operator.shape], step, "shape")])


@QDQ.of(Permute)
def permute(operator: Permute, graph: QdqGraph, step: Step) -> None:
    """Adds a Transpose node."""
    graph.move(step, "Transpose", [], perm=operator.order)


@QDQ.of(Slice)
def slice_axis(operator: Slice, graph: QdqGraph, step: Step) -> None:
    """Adds a Slice node that slices one axis."""
    bounds = {
        "start": operator.start,
        "stop": operator.stop,
        "axis": operator.axis,
        "step": operator.step,
    }
    constants = [graph.integers([value], step, label) for label, value in bounds.items()]
    graph.move(step, "Slice", constants)


@QDQ.of(Pad)
def pad(operator: Pad, graph: QdqGraph, step: Step) -> None:
    """Adds a Pad node that pads with the real value of a code."""
    y = graph.program.edges[step.output]
    amounts = [amount for side in zip(*operator.amounts, strict=True) for amount in side]
    value = graph.floats((operator.value - y.zero_point) * y.scale[0], step, "value")
    graph.move(step, "Pad", [graph.integers(amounts, step, "amounts"), value])


@QDQ.of(Gather)
def gather(operator: Gather, graph: QdqGraph, step: Step) -> None:
    """Adds a Gather node with constant positions."""
    index = graph.program.parameters(step)["index"]
    constant = graph.tensor(step.tensors["index"], index, graph.onnx.TensorProto.INT64)
    graph.move(step, "Gather", [constant], axis=operator.axis)
