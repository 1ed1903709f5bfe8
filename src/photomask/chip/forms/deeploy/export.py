"""The Deeploy form: it writes and checks a network, with one sample and its expected outputs."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from photomask.arrays import read_arrays
from photomask.chip.forms.deeploy.check import run_network
from photomask.chip.forms.deeploy.context import DEEPLOY, DeeployGraph
from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.golden import single_samples
from photomask.chip.forms.onnx_builder import save_onnx
from photomask.chip.forms.onnx_check import Tally, read_onnx
from photomask.chip.forms.writers import Problem, each_step, require_none
from photomask.chip.operators import Operator, Requantize
from photomask.chip.program import Edge, IntegerProgram, NumpyEngine, Step
from photomask.documents import written_whole
from photomask.errors import DataError, DocumentError, FormError

if TYPE_CHECKING:
    import onnx

NETWORK_FILE = "network.onnx"
INPUTS_FILE = "inputs.npz"
OUTPUTS_FILE = "outputs.npz"


class DeeployModel(NamedTuple):
    """What Deeploy's tests read: the content of `network.onnx`, `inputs.npz` and `outputs.npz`."""

    model: "onnx.ModelProto"
    inputs: dict[str, np.ndarray]
    """int64 codes by input name, in the order of the model."""
    outputs: dict[str, np.ndarray]
    """The expected int64 codes by output name, in the order of the model."""


def deeploy_model(program: IntegerProgram, codes: Mapping[str, np.ndarray]) -> DeeployModel:
    """Returns a program for Deeploy, with one sample and its expected outputs.

    `RequantShift(x, mul, add) = clip((x * mul + add + div / 2) >> log2(div))`, all in 32 bits. The
    bias of a convolution is part of `add`, because Deeploy's convolution has no bias. Averages are
    depthwise convolutions with ones. The codes equal the program's, bit for bit.

    Args:
        program: a program for a target like `deeploy`, which has no zero points, rounds half up,
            and has multipliers so narrow that `x * mul` fits 32 bits. Multipliers of 8 bits fit
            where 16 bits do not.
        codes: int64 codes of one sample by input name, [1, ...].

    Raises:
        FormError: Deeploy cannot express some operators, formats or sizes. The message names all of
            them.
        DataError: the codes are not the codes of one sample.
        MissingDependencyError: the package onnx is not installed.
    """
    sample, *others = single_samples(program, codes, None)
    if others:
        raise DataError(f"Deeploy's tests take one sample, got {1 + len(others)}; pass the first")
    graph, problems = _written(program)
    require_none(problems, "Deeploy's generic platform")
    inputs, outputs = program.inputs, tuple(dict.fromkeys(program.outputs))
    values = NumpyEngine(program).run(sample)
    return DeeployModel(
        graph.finished(inputs, outputs),
        {graph.name(name): sample[name] for name in inputs},
        {graph.name(name): values[name] for name in outputs},
    )


def _written(program: IntegerProgram) -> tuple[DeeployGraph, list[Problem]]:
    """Returns the nodes of all steps, and the problems of edges and steps without a form."""
    graph = DeeployGraph(program)
    problems: list[Problem] = []
    for name in program.inputs:
        try:
            _require_carrier(program.edges[name])
        except FormError as error:
            problems.append(Problem(name, "input", "the model's input", str(error)))
    _, of_edges = each_step(program, lambda step: _require_codes(program, step))
    _, of_steps = each_step(program, lambda step: DEEPLOY.write(step.operator, graph, step))
    return graph, [*problems, *of_edges, *of_steps]


def _require_codes(program: IntegerProgram, step: Step) -> None:
    """Raises an error for an activation that Deeploy cannot hold, or a sum that is not rescaled."""
    edge = program.edges[step.output]
    if edge.role != "accumulator":
        _require_carrier(edge)
        return
    readers = program.links.readers[edge.name]
    rescaled = all(isinstance(reader.operator, Requantize) for reader in readers)
    if not readers or not rescaled or edge.name in program.outputs:
        raise FormError("its sums must be read by rescalings and by nothing else")


def _require_carrier(edge: Edge) -> None:
    if edge.format.bits > 8 or edge.zero_point:
        raise FormError(
            f"its codes are {edge.format} with zero point {edge.zero_point}, but Deeploy has at "
            "most 8 bits and no zero points"
        )


@dataclass(frozen=True)
class DeeployForm:
    """A program as a folder for Deeploy's test runner; see `deeploy_model`."""

    name: ClassVar[str] = "deeploy"
    title: ClassVar[str] = "the ONNX dialect of Deeploy, bit for bit, for microcontrollers"
    place: ClassVar[str] = "deeploy"

    def refusal(self, operator: type[Operator]) -> str | None:
        """Returns the reason why the form cannot express an operator, or None if it can."""
        return DEEPLOY.refusal(operator)

    def problems(self, program: IntegerProgram) -> list[Problem]:
        """Returns a problem for every input and every step that cannot be expressed.

        Raises:
            MissingDependencyError: the package onnx is not installed.
        """
        return _written(program)[1]

    def export(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> None:
        """Writes a network, its inputs and its outputs in the files of Deeploy's test runner.

        Args:
            program: a program for a target like `deeploy`.
            place: the folder. An earlier export there is replaced.
            samples: the first sample is written, with its expected outputs.

        Raises:
            FormError: names all steps that cannot be expressed.
            DataError: there are no samples, or the first does not fit the program.
            ExportError: the folder holds something else, or a file could not be written to the
                disk.
            MissingDependencyError: the package onnx is not installed.
        """
        if not samples:
            raise DataError(
                "Deeploy's tests need one sample with its expected outputs, got none; pass inputs"
            )
        model = deeploy_model(program, samples[0])
        with written_whole(place, "Deeploy folder") as staging:
            save_onnx(model.model, staging / NETWORK_FILE)
            for name, arrays in ((INPUTS_FILE, model.inputs), (OUTPUTS_FILE, model.outputs)):
                buffer = io.BytesIO()
                np.savez(buffer, allow_pickle=False, **arrays)
                (staging / name).write_bytes(buffer.getvalue())

    def check(self, program: IntegerProgram, place: Path, samples: Sequence[Sample]) -> FormCheck:
        """Runs the network on the folder's own sample, in 32 bits as Deeploy does.

        The outputs, and the outputs that the folder expects, are both compared with the oracle's.

        Args:
            program: the program that was written.
            place: the folder.
            samples: not used, because the folder holds its own sample.

        Raises:
            DocumentError: a file is missing, was not written by `export`, or was made from another
                program.
            MissingDependencyError: the package onnx is not installed.
        """
        model = read_onnx(place / NETWORK_FILE, program)
        inputs, outputs = (read_arrays(place / name) for name in (INPUTS_FILE, OUTPUTS_FILE))
        try:
            given = [inputs[value.name] for value in model.graph.input]
            sample = dict(zip(program.inputs, given, strict=True))
            oracle = NumpyEngine(program).run(sample)
            values, problems = run_network(model, inputs)
            wanted = dict(zip(dict.fromkeys(program.outputs), model.graph.output, strict=True))
            found = {name: (outputs[v.name], values[v.name]) for name, v in wanted.items()}
        except (DataError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DocumentError(
                f"{place} holds no network that Deeploy can run: {error}"
            ) from error
        tally = Tally()
        tally.problems += problems
        for name, arrays in found.items():
            for array in arrays:
                tally.add(name, 0, array, oracle[name])
        return tally.result()
