"""Each step of a float model by itself: it reads the oracle's values, so differences do not travel.

A form that rescales in floating point may miss a code by one where a value lies near the middle of
two. Over a whole network such differences add up, so that no bound says what is a fault. Computed
from equal codes, each edge has a bound.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from photomask.chip.forms.form import Sample
from photomask.chip.forms.onnx_builder import onnx_package
from photomask.chip.forms.onnx_check import Tally, oracle_edges
from photomask.chip.forms.onnx_runtime import Session, runtime_package
from photomask.chip.program import Edge, IntegerProgram

if TYPE_CHECKING:
    import onnx


def given(edge: str) -> str:
    """Returns what the input is called that stands for an edge."""
    return f"{edge}/given"


def reading_given(model: "onnx.ModelProto", edges: Iterable[str]) -> "onnx.ModelProto":
    """Returns a copy that computes each edge as before, and reads it from an input of its own.

    Args:
        model: its values are real numbers.
        edges: values that become outputs of the copy; what reads one reads `given(edge)`.
    """
    package = onnx_package()
    names = {edge: given(edge) for edge in edges}
    copy = type(model)()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    del copy.graph.output[:]
    for edge, name in names.items():
        for values, called in ((copy.graph.input, name), (copy.graph.output, edge)):
            values.append(
                package.helper.make_tensor_value_info(called, package.TensorProto.FLOAT, None)
            )
    return copy


def compare_steps(
    program: IntegerProgram,
    model: "onnx.ModelProto",
    edges: Sequence[str],
    samples: Sequence[Sample],
    tally: Tally,
) -> None:
    """Runs a model of `reading_given`, and counts the codes that differ from the oracle's.

    Args:
        program: what it computes.
        model: its first inputs are the program's, as real numbers.
        edges: what it was made with.
        samples: to run, at least one.
        tally: takes the codes.

    Raises:
        DataError: there are no samples, or they do not fit the program.
        EngineError: ONNX Runtime refuses the model, or fails.
        MissingDependencyError: onnxruntime is not installed.
    """
    session = Session(runtime_package("the check of an ONNX file"), model, optimized=False)
    read = [*program.inputs, *edges]
    named = dict(zip((value.name for value in model.graph.input), read, strict=True))
    for position, codes in oracle_edges(program, samples):
        feeds = {name: _real(program.edges[edge], codes[edge]) for name, edge in named.items()}
        for edge, value in session.run(edges, feeds).items():
            tally.add(edge, position, _codes(program.edges[edge], value), codes[edge])


def _real(edge: Edge, codes: np.ndarray) -> np.ndarray:
    """Returns the real values of codes, in float32."""
    return edge.dequantize(torch.from_numpy(codes)).float().numpy()


def _codes(edge: Edge, values: np.ndarray) -> np.ndarray:
    """Returns the codes that lie next to real values."""
    unit = edge.dequantize(torch.full(values.shape, edge.zero_point + 1)).numpy()
    return np.rint(values.astype(np.float64) / unit).astype(np.int64) + edge.zero_point
