"""How an average over windows becomes a sum and a rescaling."""

import numpy as np

from photomask.chip.conversion.builder import ONE, Conversion
from photomask.chip.graph import Node
from photomask.chip.graph import operations as float_operations
from photomask.chip.operators import AveragePool


def convert_average_pool(conversion: Conversion, node: Node) -> None:
    """Sums over windows, and the division by their sizes as part of the rescaling."""
    operation = node.operation
    x, y = conversion.scale_of(node.inputs[0]), conversion.scale_of(node.name)
    spatial = conversion.edges[node.inputs[0]].shape[-_rank(operation) :]
    size = node.shape[-len(spatial) :]
    if isinstance(operation, float_operations.AdaptiveAveragePool):
        spans = [-(-s // n) + (s % n > 0) for s, n in zip(spatial, size, strict=True)]
        operator = AveragePool(
            kernel=tuple(spans),
            stride=(1,) * len(size),
            padding=(0,) * len(size),
            output_size=size,
            zero_point=x.zero_point,
            adaptive=True,
        )
    else:
        assert isinstance(operation, float_operations.AveragePool)  # noqa: S101 - by CONVERTERS
        operator = AveragePool(
            kernel=operation.kernel,
            stride=operation.stride,
            padding=operation.padding,
            output_size=size,
            zero_point=x.zero_point,
            adaptive=False,
        )
    count = _window_counts(operation, operator, spatial)
    accumulator = conversion.add_step(
        node, f"{node.name}.accumulator", operator, node.inputs, {}, ONE * x.scale
    )
    ratio = x.scale / (count * y.scale)
    conversion.requantize(node, accumulator, ratio, y, reciprocal=bool(np.any(count > 1)))


def _rank(operation: object) -> int:
    if isinstance(operation, float_operations.AdaptiveAveragePool):
        return len(operation.output_size)
    assert isinstance(operation, float_operations.AveragePool)  # noqa: S101 - by CONVERTERS
    return len(operation.kernel)


def _window_counts(
    operation: object, operator: AveragePool, spatial: tuple[int, ...]
) -> np.ndarray:
    """Returns what each window's sum is divided by: [1], or [1, *output] where windows differ."""
    windows = operator.windows(spatial)
    if isinstance(operation, float_operations.AveragePool):
        if operation.divisor is not None:
            return ONE * operation.divisor
        if operation.count_padding:
            # Windows count their padding, but not what lies beyond it.
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
