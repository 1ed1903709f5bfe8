"""An integer program as a QONNX model: real numbers, and Quant nodes that say what is rounded."""

from typing import TYPE_CHECKING

from photomask.chip.forms.qonnx.context import DOMAIN, QonnxGraph
from photomask.chip.forms.qonnx.operators import emit
from photomask.chip.program import IntegerProgram

if TYPE_CHECKING:
    import onnx

OPSET = 13
"""The oldest whose Squeeze, Clip and ReduceSum are today's; tools for QONNX read it."""


def qonnx_model(program: IntegerProgram) -> "onnx.ModelProto":
    """Returns a program as tools for QONNX (FINN, hls4ml) read it.

    Every activation is a real number behind a `Quant` node that has the edge's scale, zero point
    and bits; weights are real numbers behind one of their own, or behind `BipolarQuant` where all
    are -1 or 1. Rescaling divides by a float32 scale instead of multiplying by an integer: where
    the target rescales by shifts alone, and sums stay below 2**24, codes are equal; elsewhere a
    code that lies close to the middle of two may come out as its neighbour.

    Args:
        program: its edges' scales give the model its real numbers.

    Returns:
        A model of opset 13 for a batch of 1; `save_onnx` writes it.

    Raises:
        ExportError: an operator without a form in QONNX.
        MissingDependencyError: the package onnx is not installed.
    """
    graph = QonnxGraph(program)
    for name in program.inputs:
        graph.quantized_input(program.edges[name])
    for step in program.steps:
        emit(graph, step)
    return graph.model(
        [graph.inputs[name] for name in program.inputs],
        tuple(dict.fromkeys(program.outputs)),
        {"": OPSET, DOMAIN: 1},
        f"Integer program for target {program.target.name!r} in real numbers: a code is "
        "value / scale + zero point.",
    )
