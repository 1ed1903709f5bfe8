"""Integer weights and biases beside those of the float model."""

from dataclasses import dataclass

import numpy as np

from photomask.chip.graph import FloatGraph
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import IntegerProgram, Step

ROUNDING = 0.51
"""Half a step, and what float32 adds to it."""
MOST_WEIGHTS = 0.99
MOST_BIASES = 0.5


@dataclass(frozen=True)
class Strays:
    """Parameters that stand out; None where the layer has no rule that they could break."""

    weights: int | None
    biases: int | None


def stray_parameters(program: IntegerProgram, graph: FloatGraph) -> dict[str, Strays]:
    """Finds, by node, the parameters that are not the model's own, rounded.

    Quantizers round each weight to an end of its step, usually the nearest. Where nearly all
    weights of a layer do, the others are strays. A layer whose parameters were trained further, or
    whose codes are not linear, has no such rule.
    """
    nodes = graph.by_name
    return {
        step.node: _strays(program, step, graph.constants_of(nodes[step.node]))
        for step in program.steps
        if step.node in nodes and "weight" in step.tensors
    }


def _strays(program: IntegerProgram, step: Step, constants: dict) -> Strays:
    parameters = program.parameters(step)
    weight = constants["weight"].detach().double().cpu().numpy()
    bias = constants["bias"].detach().double().cpu().numpy()
    if weight.shape != parameters["weight"].shape or bias.shape != parameters["bias"].shape:
        return Strays(None, None)
    off_biases = _stray(_bias_errors(program, step, bias), MOST_BIASES, (ROUNDING,))
    if off_biases is None:
        return Strays(None, None)
    errors = _weight_errors(program, step, weight)
    off_weights = _stray(errors, MOST_WEIGHTS, (ROUNDING, 2 * ROUNDING))
    if off_weights is None:
        return Strays(None, int(off_biases.sum()))
    # A wrong weight is also wrong in the zero-point correction, which the bias holds.
    off_biases &= ~off_weights.reshape(len(off_biases), -1).any(axis=1)
    return Strays(int(off_weights.sum()), int(off_biases.sum()))


def _stray(errors: np.ndarray, most: float, limits: tuple[float, ...]) -> np.ndarray | None:
    """Finds errors above the first limit that most of them keep; all but one count as most."""
    for limit in limits:
        strays = errors > limit
        if strays.sum() <= max(1.0, (1 - most) * errors.size) and not strays.all():
            return strays
    return None


def _weight_errors(program: IntegerProgram, step: Step, weight: np.ndarray) -> np.ndarray:
    """Distances in steps; 0 where the model's weight lies beyond the format's end."""
    parameters = program.parameters(step)
    codes, format = parameters["weight"], program.formats[step.tensors["weight"]]
    trailing = (1,) * (codes.ndim - 1)
    x, accumulator = program.edges[step.inputs[0]], program.edges[step.output]
    unit = np.array(accumulator.scale).reshape(-1, *trailing) / x.scale[0]
    if "group_multiplier" in parameters:
        factor = parameters["group_multiplier"]
        size = -(-codes.shape[1] // factor.shape[1])
        spread = np.repeat(factor, size, axis=1)[:, : codes.shape[1]]
        unit = unit * spread.reshape(*spread.shape, *trailing[1:])
    position = weight / unit
    if "weight_zero_point" in parameters:
        position = position + parameters["weight_zero_point"].reshape(-1, *trailing)
    beyond = (codes >= format.high) & (position > codes)
    beyond |= (codes <= format.low + 1) & (position < codes)
    return np.where(beyond, 0.0, np.abs(codes - position))


def _bias_errors(program: IntegerProgram, step: Step, bias: np.ndarray) -> np.ndarray:
    """Distances in units of the accumulator."""
    parameters = program.parameters(step)
    x, accumulator = program.edges[step.inputs[0]], program.edges[step.output]
    weight = effective_weight(parameters)
    correction = x.zero_point * weight.reshape(len(weight), -1).sum(axis=1)
    return np.abs(parameters["bias"] + correction - bias / np.array(accumulator.scale))
