"""An integer program as an ONNX model that computes the same integers on every edge."""

from typing import TYPE_CHECKING

from photomask.chip.forms.onnx.context import IntegerGraph
from photomask.chip.forms.onnx.functions import DOMAIN, OPSET
from photomask.chip.forms.onnx.operators import emit
from photomask.chip.program import IntegerProgram

if TYPE_CHECKING:
    import onnx


def integer_model(program: IntegerProgram) -> "onnx.ModelProto":
    """Returns a program in standard integer operators, exact to the last bit.

    Inputs, outputs and all values between are called as the program's edges and hold their codes;
    codes of up to 8 bits are int8 or uint8, wider ones int32 or int64. No tensor is a float. What
    ai.onnx has no operator for is a function of the model, in the domain `photomask`.

    Args:
        program: any program; its batch becomes the dimension `batch`.

    Returns:
        A checked model of opset 21 and IR version 10; `save_onnx` writes it.

    Raises:
        MissingDependencyError: the package onnx is not installed.
    """
    graph = IntegerGraph(program)
    for edge in program.edges.values():
        graph.describe(edge.name, graph.type_of_edge(edge), edge)
    for step in program.steps:
        emit(graph, step)
    return graph.model(
        program.inputs,
        tuple(dict.fromkeys(program.outputs)),
        {"": OPSET, DOMAIN: 1},
        f"Integer program for target {program.target.name!r}; every value is an integer code.",
    )
