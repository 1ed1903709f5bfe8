"""What a program is compared on: real inputs that fit it."""

import torch
from torch import Tensor

from photomask.chip.data import Batch, Data, InputForm, read_samples
from photomask.chip.graph import FloatGraph
from photomask.chip.program import Edge, IntegerProgram
from photomask.errors import DataError


def checked_inputs(program: IntegerProgram, inputs: Data) -> Batch:
    """Returns floats as float32 and integers as int64, one tensor per input, and their labels.

    They are moved to the CPU, where float graphs have their constants.

    Raises:
        DataError: wrong shape or dtype, no samples, NaN or infinity, or numbers of no row.
    """
    forms = [_form(program.edges[name]) for name in program.inputs]
    batch = read_samples(forms, inputs, what="data")
    for name, x in zip(program.inputs, batch.inputs, strict=True):
        if not x.is_floating_point():
            _check_codes(program.edges[name], x)
    return batch


def _form(edge: Edge) -> InputForm:
    """Returns what an input takes: real numbers, or integers where codes are numbers of rows."""
    may_be_codes = (edge.scale, edge.zero_point) == ((1.0,), 0)
    return InputForm(
        edge.name, edge.shape[1:], None if may_be_codes else False, torch.device("cpu")
    )


def _check_codes(edge: Edge, x: Tensor) -> None:
    low, high = int(x.min()), int(x.max())
    if low < edge.low or high > edge.high:
        raise DataError(
            f"input {edge.name!r} holds {low} to {high}, the program takes {edge.low} to "
            f"{edge.high}"
        )


def require_edges(program: IntegerProgram, graph: FloatGraph) -> None:
    """Refuses a program that lacks an edge for a node of the model.

    Raises:
        DataError: names the first node without one.
    """
    if missing := [node.name for node in graph.nodes if node.name not in program.edges]:
        raise DataError(
            f"the program has no edge for the model's node {missing[0]!r}: it was made from "
            "another model, or from another version of it"
        )
