"""An integer program as a QONNX model: real numbers, and Quant nodes that say what is rounded."""

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
        FormError: steps that have no form in QONNX; names all of them and says why.
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
    """Returns the nodes of all inputs and steps, and what is wrong with steps that have none."""
    graph = QonnxGraph(program)
    for name in program.inputs:
        graph.quantized_input(program.edges[name])
    _, problems = each_step(program, lambda step: QONNX.write(step.operator, graph, step))
    return graph, problems


@dataclass(frozen=True)
class QonnxForm:
    """A program as an ONNX file with Quant nodes; see `qonnx_model`."""

    name: ClassVar[str] = "qonnx"
    title: ClassVar[str] = "ONNX of real numbers behind Quant nodes; FINN, hls4ml"
    place: ClassVar[str] = "network.qonnx.onnx"

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns why an operator has no such form; None where it has one."""
        return QONNX.refusal(operator)

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns every step that cannot be expressed.

        Raises:
            MissingDependencyError: the package onnx is not installed.
        """
        return _written(program)[1]

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> None:
        """Writes the file; samples are not needed.

        Raises:
            FormError: names all steps that cannot be expressed.
            ExportError: the model is larger than protobuf reads, or the disk refused the file.
            MissingDependencyError: the package onnx is not installed.
        """
        save_onnx(qonnx_model(program), place)

    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        """Runs the file in ONNX Runtime, and compares each activation, computed from equal codes.

        Args:
            program: what was written.
            place: the file.
            samples: to run, at least one.

        Raises:
            DataError: there are no samples, or they do not fit the program.
            DocumentError: the file is missing, no ONNX model, or of another program.
            EngineError: ONNX Runtime refuses the file, or fails.
            MissingDependencyError: onnx or onnxruntime is not installed.
        """
        return check_steps(program, read_onnx(place, program), samples)
