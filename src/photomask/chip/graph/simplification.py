"""Captures and simplifies a model, and checks the simplification on the example."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import passes
from photomask.chip.graph.capture import capture_with_batches
from photomask.chip.graph.float_graph import FloatGraph, Node, largest_difference
from photomask.errors import CaptureError
from photomask.stages import stage

ROUNDINGS = 8.0
"""The allowed difference of a simplified graph, in multiples of the captured one's float error."""
FLOAT32_BAND = 2.0**-20
"""The difference that is always allowed, relative to the largest value.

Folded constants are rounded to float32, which changes each of them by up to `2**-24`.
"""


@stage(__name__, "capture")
def capture_simplified(model: nn.Module | ExportedProgram, example: Any) -> FloatGraph:
    """Returns a model as a simplified float graph, after checking that the outputs stay the same.

    `capture` compares the captured graph with the model. This function then compares the simplified
    graph with the captured one, on the same two batches.

    Args:
        model: a module that `torch.export` can capture, or an exported program. It is not changed.
        example: inputs with the batch at axis 0 and at least one sample, as for `capture`.

    Raises:
        CaptureError: the export fails, the graph does not compute what the model does, or a pass
            changes the outputs.
        UnsupportedOperatorError: operators are not supported; the message names them all, with
            their source lines.
        DataError: the example is empty, complex or not finite.
    """
    graph, batches = capture_with_batches(model, example)
    with float32_by_default(), torch.no_grad():
        simplified = passes.simplify(graph)
        for batch in batches:
            _compare(graph, simplified, batch)
    return simplified


def _compare(graph: FloatGraph, simplified: FloatGraph, batch: Sequence[Tensor]) -> None:
    """Raises an error if a simplified graph differs from the captured one.

    Both compute in float64, where only folded constants, which were rounded, make a difference. The
    difference between the captured graph's float32 and float64 outputs shows how much such rounding
    matters.
    """
    exact = _in_float64(graph, batch)
    rounding = largest_difference(graph(*batch), exact)
    allowed = ROUNDINGS * rounding + FLOAT32_BAND
    difference = largest_difference(_in_float64(simplified, batch), exact)
    if difference <= allowed:
        return
    before = graph
    for name, rewrite in passes.PASSES:
        after = rewrite(before)
        if not largest_difference(_in_float64(after, batch), exact) <= allowed:
            node = _first_new_value(before, after, batch, allowed)
            raise CaptureError(
                f"the pass {name!r} changes what the model computes: with a batch of "
                f"{len(batch[0])} samples an output differs by {difference:.2g} of its largest "
                f"value, of which float rounding explains {allowed:.2g}; the first node with "
                f"another value is {node.name!r} ({node.operation.kind}, {node.source}). This is a "
                "fault of Photomask; please report it with this model"
            )
        before = after


def _in_float64(graph: FloatGraph, batch: Sequence[Tensor]) -> tuple[Tensor, ...]:
    found = {node.name: value for node, value in _run(graph, batch) if node.name in graph.outputs}
    return tuple(found[name] for name in graph.outputs)


def _run(graph: FloatGraph, batch: Sequence[Tensor]):
    """Yields every node with its value in float64, and converts constants node by node."""

    def constants_of(node: Node) -> Mapping[str, Tensor]:
        return {role: _wide(value) for role, value in graph.constants_of(node).items()}

    return graph.run([_wide(x) for x in batch], constants_of)


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _first_new_value(
    before: FloatGraph, after: FloatGraph, batch: Sequence[Tensor], allowed: float
) -> Node:
    """Returns the first node of a rewritten graph whose value no node had before.

    Values are compared rather than names, because a node that was joined with its reader keeps its
    name but has the value of the reader.
    """
    known = [value for _, value in _run(before, batch)]
    last = after.nodes[-1]
    for node, value in _run(after, batch):
        last = node
        moved = [other for other in known if other.numel() == value.numel()]
        if not any(_alike(value, other, allowed) for other in moved):
            return node
    return last


def _alike(value: Tensor, other: Tensor, allowed: float) -> bool:
    if largest_difference([value.flatten()], [other.flatten()]) <= allowed:
        return True
    together = value.flatten().sort().values, other.flatten().sort().values
    return largest_difference([together[0]], [together[1]]) <= allowed
