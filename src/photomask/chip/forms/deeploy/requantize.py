"""Writes rescaling as RequantShift."""

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.deeploy.context import DEEPLOY, INT32, DeeployGraph
from photomask.chip.operators import Requantize
from photomask.chip.program import Step
from photomask.chip.target import Rounding
from photomask.errors import FormError


@DEEPLOY.of(Requantize)
def requantize(operator: Requantize, graph: DeeployGraph, step: Step) -> None:
    """Adds a RequantShift node, which also adds the bias of the convolution or sum before it."""
    if operator.rounding is not Rounding.HALF_UP or operator.zero_point or operator.offset:
        raise FormError(
            "it has another rounding mode, a zero point or an offset, but Deeploy rounds half up "
            "without either"
        )
    levels, name = _levels(operator), step.inputs[0]
    multiplier, shift = _multipliers(graph, step)
    bias = graph.folded.get(name, np.zeros(len(multiplier), dtype=np.int64))
    added = bias * multiplier
    _require_32_bits(graph.program.edges[name].interval, multiplier, shift, added)
    shape = (len(multiplier), *(1,) * (len(graph.program.edges[name].shape) - 2))
    constants = [
        graph.tensor(f"{step.name}_mul", multiplier.reshape(shape), np.int32),
        graph.tensor(f"{step.name}_add", added.reshape(shape), np.int32),
    ]
    graph.node(
        "RequantShift", [graph.name(name), *constants], graph.name(step.output), step,
        div=graph.number(1 << shift), n_levels=graph.number(levels),
        signed=graph.number(int(operator.low < 0)),
    )  # fmt: skip


def _levels(operator: Requantize) -> int:
    """Returns the number of codes.

    Raises:
        FormError: RequantShift cannot clamp to these codes.
    """
    count = operator.high - operator.low + 1
    if count % 2 or count > 256 or operator.low not in (0, -count // 2):
        raise FormError(
            f"its codes are clamped to {operator.low} to {operator.high}, but Deeploy clamps only "
            "to 0 to 2n - 1 or to -n to n - 1"
        )
    return count


def _multipliers(graph: DeeployGraph, step: Step) -> tuple[np.ndarray, int]:
    """Returns the multipliers [C] for one common shift, and that shift.

    `(x * m + 2**(s-1)) >> s` is exactly `(x * m * 2**k + 2**(s+k-1)) >> (s+k)`. The shift is at
    least 1, so that half of the divisor is an integer.

    Raises:
        FormError: there is neither one multiplier nor one for each channel.
    """
    parameters, x = graph.program.parameters(step), graph.program.edges[step.inputs[0]].shape
    given = parameters["multiplier"]
    if len(x) < 2 or given.shape not in {(1,) * given.ndim, (x[1], *(1,) * (len(x) - 2))}:
        raise FormError(
            f"its multipliers have the shape {given.shape}, but Deeploy has one multiplier for "
            "each channel of axis 1"
        )
    shift = max(1, int(parameters["shift"].max()))
    multiplier = given.astype(object) << (shift - parameters["shift"])
    return np.broadcast_to(multiplier.reshape(-1), (x[1],)), shift


def _require_32_bits(x: Interval, multiplier: np.ndarray, shift: int, added: np.ndarray) -> None:
    """Raises an error if products exceed the 32 bits in which RequantShift computes."""
    products = x.scaled(int(multiplier.max())).union(Interval(0, 0))
    products = products.union(Interval(int(added.min()), int(added.max())))
    if not Interval(products.low, products.high + (1 << (shift - 1))).within(INT32):
        raise FormError(
            f"its products reach from {products.low} to {products.high}, which exceeds Deeploy's "
            "32 bits; choose a target with fewer multiplier_bits, such as 8"
        )
