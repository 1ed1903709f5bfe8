"""An integer program as an ONNX model that computes the same integers on every edge."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.onnx.context import ONNX, IntegerGraph
from photomask.chip.forms.onnx.functions import DOMAIN, OPSET
from photomask.chip.forms.onnx_builder import save_onnx
from photomask.chip.forms.onnx_check import Tally, oracle_edges, read_onnx
from photomask.chip.forms.onnx_runtime import Session, giving_every_value, runtime_package
from photomask.chip.forms.writers import Problem, each_step, require_none
from photomask.chip.operators import Operator
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
    graph, problems = _written(program)
    require_none(problems, "integer ONNX")
    return graph.model(
        program.inputs,
        tuple(dict.fromkeys(program.outputs)),
        {"": OPSET, DOMAIN: 1},
        f"Integer program for target {program.target.name!r}; every value is an integer code.",
    )


def _written(program: IntegerProgram) -> tuple[IntegerGraph, list[Problem]]:
    """Returns the nodes of all steps, and what is wrong with steps that have none."""
    graph = IntegerGraph(program)
    for edge in program.edges.values():
        graph.describe(edge.name, graph.type_of_edge(edge), edge)
    _, problems = each_step(program, lambda step: ONNX.write(step.operator, graph, step))
    return graph, problems


@dataclass(frozen=True)
class OnnxForm:
    """A program as a file of standard ONNX, in integers alone; see `integer_model`."""

    name: ClassVar[str] = "onnx"
    title: ClassVar[str] = "ONNX of integers alone, bit for bit; ONNX Runtime, own compilers"
    place: ClassVar[str] = "network.onnx"

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns why an operator has no such form; None where it has one."""
        return ONNX.refusal(operator)

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns every step that cannot be expressed.

        Raises:
            MissingDependencyError: the package onnx is not installed.
        """
        return _written(program)[1]

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> None:
        """Writes the file; samples are not needed.

        Raises:
            ExportError: the model is larger than protobuf reads, or the disk refused the file.
            MissingDependencyError: the package onnx is not installed.
        """
        save_onnx(integer_model(program), place)

    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        """Runs the file in ONNX Runtime, and compares every integer of every edge.

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
        model = read_onnx(place, program)
        session = Session(runtime_package("the check of an ONNX file"), giving_every_value(model))
        names = [name for name in program.edges if name not in program.inputs]
        tally = Tally()
        for position, edges in oracle_edges(program, samples):
            found = session.run_integers(names, {name: edges[name] for name in program.inputs})
            for name in names:
                tally.add(name, position, found[name], edges[name])
        return tally.result()
