"""The ONNX form: it writes and checks an ONNX model that computes a program's own integers."""

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
    """Returns a program as an ONNX model that uses only integers and is exact to the last bit.

    All values have the names of the program's edges and hold the edges' codes. Codes of up to 8
    bits are int8 or uint8, and wider codes are int32 or int64. No tensor is a float. Where ai.onnx
    has no suitable operator, the model has a function in the domain `photomask`.

    Args:
        program: any program. Its batch axis becomes the dimension `batch`.

    Returns:
        A checked model of opset 21 and IR version 10. `save_onnx` writes it.

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
    """Returns the nodes of all steps, and the problems of the steps that cannot be expressed."""
    graph = IntegerGraph(program)
    for edge in program.edges.values():
        graph.describe(edge.name, graph.type_of_edge(edge), edge)
    _, problems = each_step(program, lambda step: ONNX.write(step.operator, graph, step))
    return graph, problems


@dataclass(frozen=True)
class OnnxForm:
    """A program as a file of standard ONNX that uses only integers; see `integer_model`."""

    name: ClassVar[str] = "onnx"
    title: ClassVar[str] = "ONNX with integers only, bit for bit, for ONNX Runtime and compilers"
    place: ClassVar[str] = "network.onnx"

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns the reason why the form cannot express an operator, or None if it can."""
        return ONNX.refusal(operator)

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns a problem for every step that cannot be expressed.

        Raises:
            MissingDependencyError: the package onnx is not installed.
        """
        return _written(program)[1]

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> None:
        """Writes the file; the samples are not used.

        Raises:
            ExportError: the model is larger than protobuf can read, or the file could not be
                written to the disk.
            MissingDependencyError: the package onnx is not installed.
        """
        save_onnx(integer_model(program), place)

    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        """Runs the file in ONNX Runtime, and compares every integer of every edge.

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
        model = read_onnx(place, program)
        session = Session(runtime_package("the check of an ONNX file"), giving_every_value(model))
        names = [name for name in program.edges if name not in program.inputs]
        tally = Tally()
        for position, edges in oracle_edges(program, samples):
            found = session.run_integers(names, {name: edges[name] for name in program.inputs})
            for name in names:
                tally.add(name, position, found[name], edges[name])
        return tally.result()
