"""Converts averages over windows or whole axes to a sum and a requantization."""

import math

import numpy as np

from photomask.chip.conversion.builder import ONE, Conversion
from photomask.chip.conversion.registry import converts
from photomask.chip.graph import Node
from photomask.chip.graph import operations as float_operations
from photomask.chip.operators import AveragePool, Operator, Sum
from photomask.chip.units import accumulator_unit, ratio_of
from photomask.errors import UsageError

Pooling = float_operations.AveragePool | float_operations.AdaptiveAveragePool


@converts(float_operations.Mean)
def _mean(conversion: Conversion, node: Node, operation: float_operations.Mean) -> None:
    """Adds a sum over whole axes; a division by the count is part of the requantization."""
    shape = conversion.edges[node.inputs[0]].shape
    operator = Sum(
        axes=operation.axes,
        keep_axes=operation.keep_axes,
        zero_point=conversion.scale_of(node.inputs[0]).zero_point,
        terms=_terms(operation, shape),
    )
    _divided(conversion, node, operator)


def _terms(operation: float_operations.Mean, shape: tuple[int, ...]) -> int:
    return math.prod(shape[axis] for axis in operation.axes)


def divisors_of(node: Node, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the divisors of a node's requantization, [1], or [1, *output] where windows differ.

    Args:
        node: any node; the divisor is 1 where the operation does not divide.
        shape: the shape of its first input.

    Raises:
        UsageError: the operation divides, but is neither a mean nor an average pool.
    """
    if not node.operation.divides:
        return ONE
    if isinstance(node.operation, float_operations.Mean):
        return ONE * _terms(node.operation, shape)
    if not isinstance(node.operation, Pooling):
        raise UsageError(
            f"the operation {node.operation.kind!r} of {node.name!r} divides, but divisors_of has "
            "no rule for its divisor; add one"
        )
    return _window_counts(node.operation, node.shape, shape)


@converts(float_operations.AveragePool, float_operations.AdaptiveAveragePool)
def _average_pool(conversion: Conversion, node: Node, operation: Pooling) -> None:
    """Adds sums over windows; the division by their sizes is part of the requantization."""
    x = conversion.scale_of(node.inputs[0])
    shape = conversion.edges[node.inputs[0]].shape
    _divided(conversion, node, _operator(operation, node.shape, shape, x.zero_point))


def _divided(conversion: Conversion, node: Node, operator: Operator) -> None:
    """Adds a sum and the requantization that divides it."""
    x, y = conversion.scale_of(node.inputs[0]), conversion.scale_of(node.name)
    unit = accumulator_unit(node.operation, [x.scale])
    divisors = divisors_of(node, conversion.edges[node.inputs[0]].shape)
    accumulator = conversion.add_step(
        node, f"{node.name}.accumulator", operator, node.inputs, {}, ONE * unit
    )
    ratio = ratio_of(unit, y.scale, divisors)
    conversion.requantize(node, accumulator, ratio, y, divisors=divisors)


def _operator(
    operation: Pooling, output: tuple[int, ...], shape: tuple[int, ...], zero_point: int
) -> AveragePool:
    """Returns the operator that sums over the windows of an input of the given shape."""
    spatial = shape[-_rank(operation) :]
    size = output[-len(spatial) :]
    if isinstance(operation, float_operations.AdaptiveAveragePool):
        spans = [-(-s // n) + (s % n > 0) for s, n in zip(spatial, size, strict=True)]
        return AveragePool(
            kernel=tuple(spans),
            stride=(1,) * len(size),
            padding=(0,) * len(size),
            output_size=size,
            zero_point=zero_point,
            adaptive=True,
        )
    return AveragePool(
        kernel=operation.kernel,
        stride=operation.stride,
        padding=operation.padding,
        output_size=size,
        zero_point=zero_point,
        adaptive=False,
    )


def _rank(operation: Pooling) -> int:
    if isinstance(operation, float_operations.AdaptiveAveragePool):
        return len(operation.output_size)
    return len(operation.kernel)


def _window_counts(
    operation: Pooling, output: tuple[int, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """Returns the divisor of each window's sum, [1], or [1, *output] where windows differ."""
    operator = _operator(operation, output, shape, zero_point=0)
    spatial = shape[-_rank(operation) :]
    windows = operator.windows(spatial)
    if isinstance(operation, float_operations.AveragePool):
        if operation.divisor is not None:
            return ONE * operation.divisor
        if operation.count_padding:
            # Padding inside a window counts, but a window may also reach beyond the padding.
            windows = [
                [
                    (at * stride, min(at * stride + kernel, extent + 2 * before))
                    for at in range(count)
                ]
                for extent, kernel, stride, before, count in zip(
                    spatial,
                    operation.kernel,
                    operation.stride,
                    operation.padding,
                    operator.output_size,
                    strict=True,
                )
            ]
    lengths = [np.array([high - low for low, high in axis]) for axis in windows]
    counts = lengths[0] if len(lengths) == 1 else np.multiply.outer(*lengths)
    return ONE * counts.flat[0] if np.all(counts == counts.flat[0]) else counts[None].astype(float)
