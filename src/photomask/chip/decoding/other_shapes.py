"""Uses one calibrated model for inputs of several shapes."""

from dataclasses import replace
from itertools import zip_longest

from torch import nn

from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import FloatGraph, capture_simplified
from photomask.chip.placement import place_with_copies
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.sites import check_states
from photomask.errors import CaptureError


@float32_by_default()
def prepare_like(prepared: PreparedModel, model: nn.Module, example: Data) -> PreparedModel:
    """Returns the same prepared model for inputs of other shapes.

    The two models share weights and quantizers, so calibrating one calibrates the other, and both
    compute the same integers for the same values.

    Args:
        prepared: the prepared model.
        model: the model that was given to `prepare`, which is not changed.
        example: inputs of the new shapes, with the batch at axis 0.

    Raises:
        CaptureError: the model cannot be captured, or its operations depend on the input shapes.
        UnsupportedOperatorError: operators have no integer form; the message names them all.
    """
    graph = capture_simplified(model, example)
    check_states(graph, prepared.states)
    placement = place_with_copies(graph, prepared.recipe, prepared.states)
    graph = placement.survey.graph
    mine, theirs = (_structure(g) for g in (graph, prepared.graph))
    for found, expected in zip_longest(mine, theirs):
        if found != expected:
            raise CaptureError(
                f"with inputs of these shapes the model computes {found or 'nothing'} where it "
                f"computed {expected or 'nothing'} before; only models whose operations and "
                "weights do not depend on the inputs' shapes can share their quantizers"
            )
    graph = replace(graph, constants=prepared.graph.constants)
    found = replace(placement.survey, graph=graph)
    other = PreparedModel(replace(placement, survey=found))
    other.share_with(prepared)
    return other


def _structure(graph: FloatGraph) -> list[str]:
    """Returns a description of each node with a scale of its own, in the order of computation."""
    found = []
    for node in graph.nodes:
        if node.operation.decides_scale:
            sizes = {role: list(x.shape) for role, x in graph.constants_of(node).items()}
            names = ", ".join(node.constants.values()) or "no constants"
            found.append(f"{node.name!r} ({node.operation.kind}; {names}; {sizes})")
    return found
