"""An integer program as Deeploy reads it: integer ONNX with RequantShift, and test vectors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from photomask.chip.forms.deeploy.context import DeeployGraph
from photomask.chip.forms.deeploy.operators import emit, problems_of
from photomask.chip.program import IntegerProgram
from photomask.errors import DataError, ExportError

if TYPE_CHECKING:
    import onnx


class DeeployModel(NamedTuple):
    """What Deeploy's tests read: `network.onnx`, `inputs.npz` and `outputs.npz`."""

    model: "onnx.ModelProto"
    inputs: dict[str, np.ndarray]
    """int64 codes by input name, in the order of the model."""
    outputs: dict[str, np.ndarray]
    """int64 codes by output name, in the order of the model; what must come out."""


def deeploy_model(program: IntegerProgram, codes: Mapping[str, np.ndarray]) -> DeeployModel:
    """Returns a program for Deeploy, with one sample and what comes out of it.

    `RequantShift(x, mul, add) = clip((x * mul + add + div / 2) >> log2(div))`, all in 32 bits. A
    convolution's bias is part of `add`, as Deeploy's convolution has none; averages are depthwise
    convolutions with ones. The codes are equal to the program's, bit for bit.

    Args:
        program: made for a target like `deeploy`: no zero points, rounding half up, multipliers
            so narrow that `x * mul` fits 32 bits (8 bits do, where 16 do not).
        codes: int64 codes of one sample by input name, [1, ...].

    Raises:
        ExportError: operators, formats or sizes that Deeploy has no form for; all of them.
        DataError: the codes are not those of one sample.
        MissingDependencyError: the package onnx is not installed.
    """
    values = _run(program, codes)
    problems = problems_of(program)
    if problems:
        raise ExportError("Deeploy's generic platform has no form for:\n  " + "\n  ".join(problems))
    graph = DeeployGraph(program)
    for step in program.steps:
        emit(graph, step)
    inputs, outputs = program.inputs, tuple(dict.fromkeys(program.outputs))
    return DeeployModel(
        graph.finished(inputs, outputs),
        {graph.name(name): codes[name] for name in inputs},
        {graph.name(name): values[name] for name in outputs},
    )


def _run(program: IntegerProgram, codes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns every edge for one sample, by the operators' own definitions."""
    for name in program.inputs:
        edge = program.edges[name]
        found = codes.get(name)
        if found is None or found.dtype != np.int64 or found.shape != edge.shape:
            raise DataError(f"input {name!r} needs int64 codes of one sample, shape {edge.shape}")
        if found.min() < edge.low or found.max() > edge.high:
            raise DataError(f"input {name!r} holds codes outside {edge.low} to {edge.high}")
    values = {name: codes[name] for name in program.inputs}
    for step in program.steps:
        inputs = [values[name] for name in step.inputs]
        values[step.output] = step.operator.run_numpy(inputs, program.parameters(step))
    return values
