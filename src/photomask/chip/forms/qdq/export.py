"""The QDQ form: a model with float operators between quantization nodes, written and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.onnx_builder import save_onnx
from photomask.chip.forms.onnx_check import read_onnx
from photomask.chip.forms.qdq.check import check_steps
from photomask.chip.forms.qdq.context import QDQ, QdqGraph
from photomask.chip.forms.writers import Problem, each_step, require_none
from photomask.chip.operators import Operator
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.errors import FormError

if TYPE_CHECKING:
    import onnx

OPSET = 21
"""The first opset with 4-bit codes, 16-bit codes, and scales of blocks."""


def qdq_model(program: IntegerProgram) -> "onnx.ModelProto":
    """Returns a program in the QDQ form, which runtimes fuse into integer kernels of their own.

    Inputs and outputs are real numbers in NCHW order. Every activation passes through
    QuantizeLinear and DequantizeLinear with the program's scale and zero point. Weights are stored
    as codes of 4, 8 or 16 bits and biases as int32, both behind DequantizeLinear.

    The model is not bit-exact, because runtimes rescale with floats and round half to even. A code
    may differ by one if the exact value lies near the middle between two codes.

    Args:
        program: a program whose activations have at most 16 bits.

    Returns:
        A model of opset 21 and IR version 10. `save_onnx` writes it.

    Raises:
        MissingDependencyError: the package onnx is not installed.
        FormError: some steps have no QDQ form. The message names all of them, with the reasons.
    """
    graph, problems = _written(program)
    require_none(problems, "QDQ", "The integer form of ONNX expresses every program.")
    for edge in program.edges.values():
        for value in (edge.name, graph.real(edge.name)):
            graph.describe(value, graph.onnx.TensorProto.FLOAT, edge)
    return graph.model(
        program.inputs,
        tuple(dict.fromkeys(map(graph.real, program.outputs))),
        {"": OPSET},
        f"Integer program for target {program.target.name!r} in the QDQ form.",
    )


def _written(program: IntegerProgram) -> tuple[QdqGraph, list[Problem]]:
    """Returns the nodes of all inputs and steps, and the problems of those without a form."""
    graph = QdqGraph(program)
    problems: list[Problem] = []
    for name in program.inputs:
        try:
            _input(graph, program.edges[name])
        except FormError as error:
            problems.append(Problem(name, "input", "the model's input", str(error)))
    _, others = each_step(program, lambda step: QDQ.write(step.operator, graph, step))
    return graph, problems + others


def _input(graph: QdqGraph, edge: Edge) -> None:
    """Quantizes an input; codes that are narrower than their type are clamped first."""
    step = Step.model_construct(name=edge.name, node=edge.name, source="input", output=edge.name)
    value = edge.name
    if (edge.low, edge.high) != graph.ends(edge):
        ends = [(end - edge.zero_point) * edge.scale[0] for end in (edge.low, edge.high)]
        labels = zip(ends, ("low", "high"), strict=True)
        constants = [graph.floats(end, step, label) for end, label in labels]
        value = graph.node("Clip", [value, *constants], step, "clamp")
    graph.quantize(value, edge, step)


@dataclass(frozen=True)
class QdqForm:
    """A program as an ONNX file with quantizing and dequantizing nodes; see `qdq_model`."""

    name: ClassVar[str] = "qdq"
    title: ClassVar[str] = "ONNX with quantize/dequantize nodes, for tools that rescale in floats"
    place: ClassVar[str] = "network.qdq.onnx"

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns the reason why the form cannot express an operator, or None if it can."""
        return QDQ.refusal(operator)

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns a problem for every input and every step that cannot be expressed.

        Raises:
            MissingDependencyError: the package onnx is not installed.
        """
        return _written(program)[1]

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> None:
        """Writes the file; the samples are not used.

        Raises:
            FormError: names all steps that cannot be expressed.
            ExportError: the model is larger than protobuf can read, or the file could not be
                written to the disk.
            MissingDependencyError: the package onnx is not installed.
        """
        save_onnx(qdq_model(program), place)

    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        """Runs each step in ONNX Runtime on the oracle's codes, and compares its output.

        Args:
            program: the program that was written.
            place: the file.
            samples: the samples to run, at least one.

        Raises:
            DataError: there are no samples, or they do not fit the program.
            DocumentError: the file is missing, is not an ONNX model, or was made from another
                program.
            EngineError: ONNX Runtime refuses the file, or fails.
            MissingDependencyError: onnx or onnxruntime is not installed.
        """
        return check_steps(program, read_onnx(place, program), samples)
