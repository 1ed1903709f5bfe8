"""Weights with zero points and group multipliers, for convolutions and linear layers."""

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.operators.base import Parameters, require


def effective_weight(parameters: Parameters) -> np.ndarray:
    """Returns the integers that multiply the input: `(weight - zero_point) * group_multiplier`.

    Args:
        parameters: `weight` [O, I, *kernel]; optional `weight_zero_point` [O]; optional
            `group_multiplier` [O, G], where each multiplier applies to ceil(I / G) consecutive
            inputs.

    Raises:
        ValueError: the shapes do not fit, or a product exceeds 63 bits.
    """
    weight = parameters["weight"]
    trailing = (1,) * (weight.ndim - 1)
    outputs = weight.shape[:1]
    require(
        weight.ndim >= 2 and weight.size > 0,
        f"the weight has the shape {weight.shape}, expected [outputs, inputs, *kernel] with at "
        "least one element",
    )
    require(parameters["bias"].shape == outputs, "there must be one bias for every output")
    if "weight_zero_point" in parameters:
        zero_point = parameters["weight_zero_point"]
        require(zero_point.shape == outputs, "there must be one weight zero point for every output")
        require(largest(weight) + largest(zero_point) < 1 << 63, "weights exceed 63 bits")
        weight = weight - parameters["weight_zero_point"].reshape(-1, *trailing)
    if "group_multiplier" in parameters:
        multiplier = parameters["group_multiplier"]
        require(
            multiplier.ndim == 2 and multiplier.shape[:1] == outputs and multiplier.size > 0,
            "there must be one row of group multipliers for every output",
        )
        require(largest(weight) * largest(multiplier) < 1 << 63, "weights exceed 63 bits")
        size = -(-weight.shape[1] // multiplier.shape[1])
        spread = np.repeat(multiplier, size, axis=1)[:, : weight.shape[1]]
        weight = weight * spread.reshape(*spread.shape, *trailing[1:])
    return weight


def partial_sums(weight: np.ndarray, bias: np.ndarray, x: Interval) -> Interval:
    """Returns an interval of every partial sum of `sum(weight * x) + bias`, in any order.

    The interval of each term includes 0, because terms may be absent (padding with 0).
    """
    lows, highs = channel_sums(weight, bias, x)
    return Interval(int(lows.min()), int(highs.max()))


def channel_sums(
    weight: np.ndarray, bias: np.ndarray, x: Interval
) -> tuple[np.ndarray, np.ndarray]:
    """Returns bounds of the partial sums of every output channel; see `partial_sums`.

    Args:
        weight: integers [O, ...].
        bias: integers [O].
        x: the interval of the input.

    Returns:
        The lowest and the highest sums, [O], as Python integers.
    """
    rows = weight.reshape(weight.shape[0], -1)
    if largest(rows) * rows.shape[1] >= 1 << 62:
        rows = rows.astype(object)
    above = np.maximum(rows, 0).sum(axis=1)
    # From here on there is one Python integer per channel, which cannot overflow.
    positive, negative = above.astype(object), (rows.sum(axis=1) - above).astype(object)
    low, high = min(x.low, 0), max(x.high, 0)
    lows = positive * low + negative * high + np.minimum(bias, 0)
    highs = positive * high + negative * low + np.maximum(bias, 0)
    return lows, highs


def largest(values: np.ndarray) -> int:
    """Returns the largest absolute value, as a Python integer."""
    return max(abs(int(values.min())), abs(int(values.max())))
