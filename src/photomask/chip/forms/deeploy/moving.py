"""Writes operators that move integers."""

import numpy as np

from photomask.chip.forms.deeploy.context import DEEPLOY, DeeployGraph
from photomask.chip.operators import (
    Concatenate,
    Constant,
    Gather,
    Pad,
    Permute,
    Reshape,
    Slice,
)
from photomask.chip.program import Step


@DEEPLOY.of(Reshape)
def reshape(operator: Reshape, graph: DeeployGraph, step: Step) -> None:
    """Adds a Reshape node with the edge's own shape, for one sample."""
    shape = np.array(graph.program.edges[step.output].shape)
    wanted = graph.tensor(f"{step.name}_shape", shape, np.int64)
    graph.node("Reshape", [graph.name(step.inputs[0]), wanted], graph.name(step.output), step)


@DEEPLOY.of(Permute)
def permute(operator: Permute, graph: DeeployGraph, step: Step) -> None:
    """Adds a Transpose node."""
    inputs = [graph.name(step.inputs[0])]
    graph.node("Transpose", inputs, graph.name(step.output), step, perm=operator.order)


DEEPLOY.refuses(Concatenate, "this form does not join activations")
DEEPLOY.refuses(Constant, "this form has constants only as weights, not as activations")
DEEPLOY.refuses(Gather, "this form takes no parts of an activation")
DEEPLOY.refuses(Pad, "this form pads only in convolutions and windows")
DEEPLOY.refuses(Slice, "this form takes no parts of an activation")
