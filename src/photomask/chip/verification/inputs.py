"""What a program is compared on: real inputs that fit it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.chip.graph import FloatGraph
from photomask.chip.program import Edge, IntegerProgram
from photomask.errors import DataError


def checked_inputs(program: IntegerProgram, inputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Returns floats as float32 and integers as int64, one tensor per input."""
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if len(tensors) != len(program.inputs):
        raise DataError(f"the program takes {list(program.inputs)}, got {len(tensors)} tensor(s)")
    checked = [
        _checked_input(program.edges[name], x)
        for name, x in zip(program.inputs, tensors, strict=True)
    ]
    if len({len(x) for x in checked}) > 1:
        raise DataError(f"the inputs hold {[len(x) for x in checked]} samples")
    return checked


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


def _checked_input(edge: Edge, x: Tensor) -> Tensor:
    if not isinstance(x, Tensor):
        raise DataError(f"input {edge.name!r} must be a tensor, got {type(x).__name__}")
    expected = edge.shape[1:]
    if tuple(x.shape[1:]) != expected or x.ndim != len(expected) + 1 or not len(x):
        raise DataError(
            f"input {edge.name!r} has shape {list(x.shape)}, the program takes "
            f"[samples, {', '.join(map(str, expected))}]"
        )
    if x.is_floating_point():
        if not bool(torch.isfinite(x).all()):
            raise DataError(f"input {edge.name!r} holds NaN or infinity")
        return x.to(torch.float32)
    if (edge.scale, edge.zero_point) != ((1.0,), 0):
        raise DataError(f"input {edge.name!r} must be a float tensor, got {x.dtype}")
    low, high = int(x.min()), int(x.max())
    if low < edge.low or high > edge.high:
        raise DataError(
            f"input {edge.name!r} holds {low} to {high}, the program takes {edge.low} to "
            f"{edge.high}"
        )
    return x.to(torch.int64)
