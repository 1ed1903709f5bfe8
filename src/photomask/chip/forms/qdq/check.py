"""Checks that a QDQ file computes the program's codes, each step from the oracle's codes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.onnx_builder import onnx_package
from photomask.chip.forms.onnx_steps import activations_in, compare_steps, given, reading_given
from photomask.chip.program import IntegerProgram
from photomask.errors import DocumentError

if TYPE_CHECKING:
    import onnx


def check_steps(
    program: IntegerProgram, model: "onnx.ModelProto", samples: Sequence[Sample]
) -> FormCheck:
    """Runs every step on the oracle's own codes, in ONNX Runtime without its fusions.

    Args:
        program: the program that the model was made from.
        model: the model, as it was read from a file.
        samples: the samples to run, at least one.

    Raises:
        DocumentError: the model lacks an activation.
        DataError: there are no samples, or they do not fit the program.
        EngineError: ONNX Runtime refuses the model, or fails.
        MissingDependencyError: onnxruntime is not installed.
    """
    dequantized = {
        node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    edges = activations_in(model, program)
    changed = reading_given(model, edges)
    for name in edges:
        if name not in dequantized:
            raise DocumentError(
                f"no DequantizeLinear node computes the activation {name!r}; export the model again"
            )
        codes, *interpretation = dequantized[name].input
        give_codes(changed, name, codes, interpretation)
    return compare_steps(program, changed, edges, samples)


def give_codes(
    model: "onnx.ModelProto", edge: str, codes: str, interpretation: Sequence[str]
) -> None:
    """Makes all readers of an edge's codes, except its DequantizeLinear, read the given codes.

    Args:
        model: a model that `reading_given` returned.
        edge: the edge whose values are given.
        codes: the value that holds the codes of the edge.
        interpretation: the names of its scale and its zero point.
    """
    readers = [node for node in model.graph.node if codes in node.input and node.output[0] != edge]
    if not readers:
        return
    name = f"{given(edge)}/codes"
    for node in readers:
        node.input[:] = [name if value == codes else value for value in node.input]
    quantized = onnx_package().helper.make_node(
        "QuantizeLinear", [given(edge), *interpretation], [name]
    )
    model.graph.node.insert(0, quantized)
