"""Checks a float model step by step on the oracle's values, so that differences do not add up.

A form that rescales in floating point may miss a code by one if the exact value lies near the
middle between two codes. Over a whole network such differences accumulate, and no bound would tell
them from a fault. If each step starts from the oracle's codes, each edge has a bound.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.onnx_builder import onnx_package
from photomask.chip.forms.onnx_check import Tally, oracle_edges
from photomask.chip.forms.onnx_runtime import Session, runtime_package
from photomask.chip.program import Edge, IntegerProgram
from photomask.errors import DocumentError

if TYPE_CHECKING:
    import onnx

BOUND = 1
"""How far a code may lie from the oracle's, as the middle of two codes may become either."""
WIDE_BOUND = 4
"""The same bound for codes of more than 8 bits.

It is wider because float32 and integer functions round such codes differently.
"""
FEW = 32
"""An edge with fewer codes than this is too small to judge by the share of codes that are off."""


def given(edge: str) -> str:
    """Returns the name of the model input that replaces an edge."""
    return f"{edge}/given"


def reading_given(model: "onnx.ModelProto", edges: Iterable[str]) -> "onnx.ModelProto":
    """Returns a copy of a model in which every step reads its edges from inputs of the model.

    The copy still computes each edge, as an output. The steps that read the edge get the values of
    a new input instead.

    Args:
        model: a model whose values are real numbers.
        edges: values that become outputs of the copy. The nodes that read one of them read the
            input `given(edge)` instead.
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


def activations_in(model: "onnx.ModelProto", program: IntegerProgram) -> list[str]:
    """Returns the activations of a program, if a node of the model computes each of them.

    Raises:
        DocumentError: no node computes one of them.
    """
    made = {name for node in model.graph.node for name in node.output}
    names = [name for name, edge in program.edges.items() if edge.role == "activation"]
    if missing := [name for name in names if name not in made]:
        raise DocumentError(
            f"no node of the model computes the activations {missing}; export the model again"
        )
    return names


def compare_steps(
    program: IntegerProgram,
    model: "onnx.ModelProto",
    edges: Sequence[str],
    samples: Sequence[Sample],
) -> FormCheck:
    """Runs a model that `reading_given` made, and counts the codes that differ from the oracle's.

    A code may differ by `BOUND`, or by `WIDE_BOUND` if it has more than 8 bits. If an edge has
    `FEW` or more codes of up to 8 bits, at least half of them must be equal. More of them differ
    only if something shifts all codes.

    Args:
        program: the program that the model expresses.
        model: its first inputs are the program's inputs, as real numbers.
        edges: the edges that `reading_given` was called with.
        samples: the samples to run, at least one.

    Raises:
        DataError: there are no samples, or they do not fit the program.
        EngineError: ONNX Runtime refuses the model, or fails.
        MissingDependencyError: onnxruntime is not installed.
    """
    if not edges:
        return FormCheck(
            0, 0, ("the program has no activations, the only edges that have codes in this form",)
        )
    session = Session(runtime_package("the check of an ONNX file"), model, optimized=False)
    read = [*program.inputs, *edges]
    named = dict(zip((value.name for value in model.graph.input), read, strict=True))
    tally = Tally()
    off = Counter[str]()
    compared = Counter[str]()
    for position, codes in oracle_edges(program, samples):
        feeds = {name: _real(program.edges[edge], codes[edge]) for name, edge in named.items()}
        for name, values in session.run(edges, feeds).items():
            edge, expected = program.edges[name], codes[name]
            bound = BOUND if edge.format.bits <= 8 else WIDE_BOUND
            off[name] += tally.add(name, position, _codes(edge, values), expected, bound)
            compared[name] += expected.size
    for name, count in off.items():
        narrow = program.edges[name].format.bits <= 8
        if narrow and compared[name] >= FEW and 2 * count > compared[name]:
            tally.problems.append(
                f"{name!r}: {count} of {compared[name]} codes differ from the oracle's, expected "
                "at most half"
            )
    return tally.result()


def _real(edge: Edge, codes: np.ndarray) -> np.ndarray:
    """Returns the real values of codes, in float32."""
    return edge.dequantize(torch.from_numpy(codes)).float().numpy()


def _codes(edge: Edge, values: np.ndarray) -> np.ndarray:
    """Returns the codes that are nearest to real values."""
    unit = edge.dequantize(torch.full(values.shape, edge.zero_point + 1)).numpy()
    return np.rint(values.astype(np.float64) / unit).astype(np.int64) + edge.zero_point
