"""What convolution and linear share: weights with zero points and group multipliers."""

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.operators.base import Parameters


def effective_weight(parameters: Parameters) -> np.ndarray:
    """Returns the integers that multiply the input: `(weight - zero_point) * group_multiplier`.

    Args:
        parameters: `weight` [O, I, *kernel]; optional `weight_zero_point` [O]; optional
            `group_multiplier` [O, G], each for ceil(I / G) consecutive inputs.
    """
    weight = parameters["weight"]
    trailing = (1,) * (weight.ndim - 1)
    if "weight_zero_point" in parameters:
        weight = weight - parameters["weight_zero_point"].reshape(-1, *trailing)
    if "group_multiplier" in parameters:
        multiplier = parameters["group_multiplier"]
        size = -(-weight.shape[1] // multiplier.shape[1])
        spread = np.repeat(multiplier, size, axis=1)[:, : weight.shape[1]]
        weight = weight * spread.reshape(*spread.shape, *trailing[1:])
    return weight


def partial_sums(weight: np.ndarray, bias: np.ndarray, x: Interval) -> Interval:
    """Bounds every partial sum of `sum(weight * x) + bias`, whatever the order of summation.

    Each term may also be absent (padding by 0), so its interval includes 0.
    """
    rows = weight.reshape(weight.shape[0], -1)
    products = (rows * x.low, rows * x.high)
    lows = np.minimum(np.minimum(*products), 0).sum(axis=1) + np.minimum(bias, 0)
    highs = np.maximum(np.maximum(*products), 0).sum(axis=1) + np.maximum(bias, 0)
    return Interval(int(lows.min()), int(highs.max()))
