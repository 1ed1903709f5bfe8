"""Writes sums, element by element."""

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.deeploy.context import DEEPLOY, DeeployGraph
from photomask.chip.operators import Add, Clamp, Interpolate, Lookup, Multiply
from photomask.chip.program import Step
from photomask.errors import FormError

INT16 = Interval(-32768, 32767)


@DEEPLOY.of(Add)
def add(operator: Add, graph: DeeployGraph, step: Step) -> None:
    """Adds nodes that multiply each input by its coefficient and sum the products.

    The RequantShift behind the sum adds the constant.
    """
    if len(step.inputs) != 2 or len({graph.program.edges[n].shape for n in step.inputs}) != 1:
        raise FormError(
            "it does not add two inputs of the same shape, which is all that Deeploy adds"
        )
    if not Interval.hull(*operator.coefficients).within(INT16):
        raise FormError(f"its coefficients {operator.coefficients} need more than 16 bits")
    terms = []
    for name, coefficient in zip(step.inputs, operator.coefficients, strict=True):
        if coefficient == 1:
            terms.append(graph.name(name))
            continue
        shape = graph.program.edges[name].shape
        # The constant has every element, because Deeploy's generic multiplication does not
        # broadcast.
        factor = graph.tensor(f"{step.name}_factor", np.full(shape, coefficient), np.int16)
        terms.append(graph.value(f"{step.name}_term", shape))
        graph.node("Mul", [graph.name(name), factor], terms[-1], step)
    graph.node("Add", terms, graph.name(step.output), step)
    channels = graph.program.edges[step.output].shape[1]
    graph.folded[step.output] = np.full(channels, operator.bias)


DEEPLOY.refuses(Multiply, "this form writes no products of two activations")
DEEPLOY.refuses(Clamp, "this form clamps only in rescalings")
DEEPLOY.refuses(Lookup, "this form writes no tables")
DEEPLOY.refuses(Interpolate, "this form writes no tables")
