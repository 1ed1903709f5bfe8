"""Learned integers of a program beside the constants of the float model."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from photomask.chip.graph import FloatGraph
from photomask.chip.operators.normalize import normal_unit
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import IntegerProgram, Step

FLOAT32 = 2.0**-22
"""What computing a code in float32 adds to an error, as a part of the code."""
EXACT = 1e-6
"""What float64 adds to the error of a bias, in units of the accumulator, with room to spare."""
MOST_WEIGHTS = 0.99
MOST_BIASES = 0.5
MOST_BLOCKS = 0.9
"""Of the rows of a weight, or of its groups, that hold no stray."""


@dataclass(frozen=True)
class Strays:
    """Parameters that stand out; None where the layer has no rule that they could break."""

    weights: int | None
    """Or gains, rows of a table, or elements of a constant."""
    biases: int | None

    @property
    def total(self) -> int:
        """Both together."""
        return (self.weights or 0) + (self.biases or 0)


def stray_parameters(program: IntegerProgram, graph: FloatGraph) -> dict[str, Strays]:
    """Finds, by node, the parameters that are not the model's own, rounded.

    Quantizers round each weight to an end of its step, usually the nearest. Where nearly all
    weights of a layer do, or all those of nearly all its rows and groups, the others are strays. A
    layer whose parameters were trained further, or whose codes are not linear, has no such rule;
    `verify(..., prepared=...)` compares it with the model that was trained.
    """
    nodes = graph.by_name
    found = {}
    for step in program.steps:
        if step.node not in nodes:
            continue
        constants = {
            role: constant.detach().double().cpu().numpy()
            for role, constant in graph.constants_of(nodes[step.node]).items()
        }
        if "weight" in step.tensors:
            found[step.node] = _of_layer(program, step, constants)
        elif "gain" in step.tensors:
            found[step.node] = _of_norm(program, step, constants)
        elif step.operator.learned_roles:
            found[step.node] = _of_codes(program, step, constants)
    return found


def _of_layer(program: IntegerProgram, step: Step, constants: Mapping[str, np.ndarray]) -> Strays:
    parameters = program.parameters(step)
    weight, bias = constants["weight"], constants["bias"]
    if weight.shape != parameters["weight"].shape or bias.shape != parameters["bias"].shape:
        return Strays(None, None)
    off_biases = _stray(_bias_errors(program, step, bias) - EXACT, MOST_BIASES, (0.5,))
    if off_biases is None:
        return Strays(None, None)
    errors = _weight_errors(program, step, weight)
    groups = parameters.get("group_multiplier", np.ones((len(weight), 1))).shape[1]
    off_weights = _stray(errors, MOST_WEIGHTS, (0.5, 1.0), groups)
    if off_weights is None:
        return Strays(None, int(off_biases.sum()))
    # A wrong weight is also wrong in the zero-point correction, which the bias holds.
    off_biases &= ~off_weights.reshape(len(off_biases), -1).any(axis=1)
    return Strays(int(off_weights.sum()), int(off_biases.sum()))


def _of_norm(program: IntegerProgram, step: Step, constants: Mapping[str, np.ndarray]) -> Strays:
    parameters = program.parameters(step)
    unit = np.array(program.edges[step.output].scale)
    terms = parameters["gain"].size
    gains = constants["gain"] * normal_unit(terms, program.target) / unit
    off_gains = _stray(_distance(parameters["gain"], gains), MOST_BIASES, (0.5,))
    off_biases = _off_norm_biases(parameters["bias"], constants["bias"] / unit)
    if off_gains is None or off_biases is None:
        return Strays(None, None)
    return Strays(int(off_gains.sum()), int((off_biases & ~off_gains).sum()))


def _off_norm_biases(codes: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """Finds the biases that are not rounded from the model's, exactly or, aligned, by float32.

    One code of them is far below a step of float32. `align_to_target` stores them in float32 again,
    after which next to none is exact.
    """
    off = np.abs(codes - wanted) > 0.5 + EXACT
    if off.sum() <= max(1.0, (1 - MOST_WEIGHTS) * off.size) and 2 * off.sum() < (codes != 0).sum():
        return off
    return _stray(_distance(codes, wanted), MOST_BIASES, (0.5,))


def _of_codes(program: IntegerProgram, step: Step, constants: Mapping[str, np.ndarray]) -> Strays:
    (role,) = step.operator.learned_roles
    codes, edge = program.tensors[step.tensors[role]], program.edges[step.output]
    if codes.shape != constants[role].shape:
        return Strays(None, None)
    wanted = constants[role] / np.array(edge.scale) + edge.zero_point
    wanted = wanted.clip(edge.format.low, edge.format.high)
    off = _stray(_distance(codes, wanted), MOST_WEIGHTS, (0.5,))
    return Strays(None if off is None else int(off.sum()), None)


def _stray(
    errors: np.ndarray, most: float, limits: tuple[float, ...], groups: int = 0
) -> np.ndarray | None:
    """Finds errors above the first limit that most of them keep; all but one count as most.

    Args:
        errors: distances from the model's values, in steps.
        most: the part of them that must keep the limit.
        limits: the first that is kept counts.
        groups: of a weight's row; where nearly all groups of all rows keep the last limit, the
            others are strays too, however many.
    """
    for limit in limits:
        strays = errors > limit
        if strays.sum() <= max(1.0, (1 - most) * errors.size) and not strays.all():
            return strays
    if groups:
        strays = errors > limits[-1]
        rows = strays.reshape(*strays.shape[:1], -1)
        blocks = np.array([part.any(axis=1) for part in np.array_split(rows, groups, axis=1)])
        if blocks.size >= 4 and blocks.sum() <= max(1.0, (1 - MOST_BLOCKS) * blocks.size):
            return strays
    return None


def _distance(codes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the distance in steps, less what float32 explains."""
    return np.abs(codes - wanted) - FLOAT32 * np.abs(wanted)


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
    return np.where(beyond, 0.0, _distance(codes, position))


def _bias_errors(program: IntegerProgram, step: Step, bias: np.ndarray) -> np.ndarray:
    """Distances in units of the accumulator."""
    parameters = program.parameters(step)
    x, accumulator = program.edges[step.inputs[0]], program.edges[step.output]
    weight = effective_weight(parameters)
    correction = x.zero_point * weight.reshape(len(weight), -1).sum(axis=1)
    return np.abs(parameters["bias"] + correction - bias / np.array(accumulator.scale))
