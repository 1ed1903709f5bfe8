"""An integer program as an ONNX model of float operators between quantize and dequantize."""

from typing import TYPE_CHECKING

from photomask.chip.forms.qdq.context import QdqGraph
from photomask.chip.forms.qdq.operators import emit
from photomask.chip.program import Edge, IntegerProgram, Step

if TYPE_CHECKING:
    import onnx

OPSET = 21
"""The first with 4-bit and 16-bit codes, and with scales of blocks."""


def qdq_model(program: IntegerProgram) -> "onnx.ModelProto":
    """Returns a program in the QDQ form, which runtimes fuse into integer kernels of their own.

    Inputs and outputs are real numbers, NCHW. Every activation passes QuantizeLinear and
    DequantizeLinear with the program's scale and zero point; weights are stored as codes of 4, 8 or
    16 bits behind DequantizeLinear, biases as int32.

    It is not exact to the program: runtimes rescale by floats and round half to even. Codes differ
    by one where a value lies near the middle of two.

    Args:
        program: its activations have at most 16 bits.

    Returns:
        A model of opset 21 and IR version 10; `save_onnx` writes it.

    Raises:
        MissingDependencyError: the package onnx is not installed.
        TargetError: a step has no QDQ form; names it and says why.
    """
    graph = QdqGraph(program)
    floats = graph.onnx.TensorProto.FLOAT
    for name in program.inputs:
        _input(graph, program.edges[name])
    for step in program.steps:
        emit(graph, step)
    for edge in program.edges.values():
        for value in (edge.name, graph.real(edge.name)):
            graph.describe(value, floats, edge)
    return graph.model(
        program.inputs,
        tuple(dict.fromkeys(map(graph.real, program.outputs))),
        {"": OPSET},
        f"Integer program for target {program.target.name!r} in the QDQ form.",
    )


def _input(graph: QdqGraph, edge: Edge) -> None:
    """Quantizes an input; codes narrower than their type are clamped before."""
    step = Step.model_construct(name=edge.name, node=edge.name, source="input", output=edge.name)
    value = edge.name
    if (edge.low, edge.high) != graph.ends(edge, step):
        ends = [(end - edge.zero_point) * edge.scale[0] for end in (edge.low, edge.high)]
        labels = zip(ends, ("low", "high"), strict=True)
        constants = [graph.floats(end, step, label) for end, label in labels]
        value = graph.node("Clip", [value, *constants], step, "clamp")
    graph.quantize(value, edge, step)
