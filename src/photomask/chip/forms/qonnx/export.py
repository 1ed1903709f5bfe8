"""The QONNX form: a model of real numbers whose Quant nodes say what is rounded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.onnx_builder import save_onnx
from photomask.chip.forms.onnx_check import read_onnx
from photomask.chip.forms.qonnx.check import check_steps
from photomask.chip.forms.qonnx.context import DOMAIN, QONNX, QonnxGraph
from photomask.chip.forms.writers import Problem, each_step, require_none
from photomask.chip.operators import Operator
from photomask.chip.program import IntegerProgram

if TYPE_CHECKING:
    import onnx

OPSET = 13
"""The oldest opset with today's Squeeze, Clip and ReduceSum; tools for QONNX can read it."""


def qonnx_model(program: IntegerProgram) -> "onnx.ModelProto":
    """Returns a program as tools for QONNX (FINN, hls4ml) read it.

    Every activation is a real number behind a `Quant` node, which has the edge's scale, zero point
    and bits. Weights are real numbers behind a `Quant` node of their own, or behind `BipolarQuant`
    if all of them are -1 or 1. Rescaling divides by a float32 scale instead of multiplying by an
    integer. The codes are equal if the target rescales by shifts alone and sums stay below 2**24.
    Otherwise a code may become its neighbour if the exact value lies near the middle between both.

    Args:
        program: its edges' scales give the model its real numbers.

    Returns:
        A model of opset 13 for a batch of 1. `save_onnx` writes it.

    Raises:
        FormError: some steps have no form in QONNX. The message names all of them, with the
            reasons.
        MissingDependencyError: the package onnx is not installed.
    """
    graph, problems = _written(program)
    require_none(problems, "QONNX", "The integer form of ONNX expresses every program.")
    return graph.model(
        [graph.inputs[name] for name in program.inputs],
        tuple(dict.fromkeys(program.outputs)),
        {"": OPSET, DOMAIN: 1},
        f"Integer program for target {program.target.name!r} in real numbers: a code is "
        "value / scale + zero point.",
    )


def _written(program: IntegerProgram) -> tuple[QonnxGraph, list[Problem]]:
    """Returns the nodes of all inputs and steps, and the problems of steps without a form."""
    graph = QonnxGraph(program)
    for name in program.inputs:
        graph.quantized_input(program.edges[name])
    _, problems = each_step(program, lambda step: QONNX.write(step.operator, graph, step))
    return graph, problems


@dataclass(frozen=True)
class QonnxForm:
    """A program as an ONNX file with Quant nodes; see `qonnx_model`."""

    name: ClassVar[str] = "qonnx"
    title: ClassVar[str] = "ONNX with real numbers behind Quant nodes, for FINN and hls4ml"
    place: ClassVar[str] = "network.qonnx.onnx"

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns the reason why the form cannot express an operator, or None if it can."""
        return QONNX.refusal(operator)

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns a problem for every step that cannot be expressed.

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
        save_onnx(qonnx_model(program), place)

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
