"""Lowers operators that reduce windows or whole axes: pools, means, sums and maxima."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.graph.builder import Call, CannotLower, EdgeName, Value
from photomask.chip.graph.lowerings.pointwise import lower_pointwise
from photomask.chip.graph.lowerings.registry import lowers
from photomask.chip.graph.operations import (
    AdaptiveAveragePool,
    AveragePool,
    Gather,
    MaxPool,
    Mean,
    Multiply,
    Permute,
    Reshape,
)


def per_axis(value: object, rank: int) -> tuple[int, ...]:
    """Returns one number per axis; a single number is repeated for all axes."""
    values: Any = value if isinstance(value, (list, tuple)) else [value]
    return tuple(values) * rank if len(values) == 1 else tuple(values)


def _pooled(call: Call, rank: int) -> EdgeName:
    """Returns the operand of a pool, which must have a batch, channels and `rank` axes."""
    if len(call.shape("self")) != rank + 2:
        raise CannotLower(f"its input must have {rank + 2} axes including the batch")
    return call.edge("self")


@lowers(
    "max_pool1d", "max_pool2d", "max_pool2d_with_indices", "max_pool1d_with_indices", is_fresh=True
)
def _max_pool(call: Call) -> Value:
    rank = 1 if "max_pool1d" in str(call.traced.target) else 2
    kernel = per_axis(call["kernel_size"], rank)
    operation = MaxPool(
        kernel,
        per_axis(call["stride"] or kernel, rank),
        per_axis(call["padding"], rank),
        per_axis(call["dilation"], rank),
        bool(call["ceil_mode"]),
    )
    edge = call.emit(operation, [_pooled(call, rank)])
    return (edge,) if "with_indices" in str(call.traced.target) else edge


@lowers("avg_pool1d", "avg_pool2d", is_fresh=True)
def _average_pool(call: Call) -> Value:
    rank = 1 if "avg_pool1d" in str(call.traced.target) else 2
    kernel = per_axis(call["kernel_size"], rank)
    divisor: Any = call.get("divisor_override")
    operation = AveragePool(
        kernel,
        per_axis(call["stride"] or kernel, rank),
        per_axis(call["padding"], rank),
        bool(call["ceil_mode"]),
        bool(call["count_include_pad"]),
        divisor,
    )
    return call.emit(operation, [_pooled(call, rank)])


@lowers("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", is_fresh=True)
def _adaptive_average_pool(call: Call) -> Value:
    sizes: Any = call["output_size"]
    size = tuple(sizes)
    edge = _pooled(call, len(size))
    spatial = call.shape("self")[2:]
    if spatial == size:
        return edge
    if all(n == 1 for n in size):
        return call.emit(Mean(tuple(range(2, len(size) + 2)), True), [edge])
    if any(s % n for s, n in zip(spatial, size, strict=True)):
        return call.emit(AdaptiveAveragePool(size), [edge])
    kernel = tuple(s // n for s, n in zip(spatial, size, strict=True))
    return call.emit(AveragePool(kernel, kernel, (0,) * len(size), False, True, None), [edge])


@lowers("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max_pool(call: Call) -> Value:
    """Lowers to a pool with equal windows; repeated elements fill smaller windows."""
    sizes: Any = call["output_size"]
    edge = _pooled(call, len(sizes))
    kernel: list[int] = []
    for axis, (extent, count) in enumerate(zip(call.shape("self")[2:], sizes, strict=True)):
        windows = [(i * extent // count, -(-(i + 1) * extent // count)) for i in range(count)]
        kernel.append(max(high - low for low, high in windows))
        index = tuple(min(low + i, high - 1) for low, high in windows for i in range(kernel[-1]))
        if index != tuple(range(extent)):
            edge = call.emit(Gather(axis + 2, index), [edge])
    return (call.emit(_whole_windows(*kernel), [edge]),)


def _whole_windows(*kernel: int) -> MaxPool:
    return MaxPool(kernel, kernel, (0,) * len(kernel), (1,) * len(kernel), False)


def _data_axes(call: Call) -> tuple[int, ...]:
    """Returns the reduced axes in ascending order; the batch must not be one of them."""
    rank = len(call.shape("self"))
    dims: Any = call["dim"]
    dims = [dims] if isinstance(dims, int) else dims or range(rank)
    axes = tuple(sorted(axis % rank for axis in dims))
    if 0 in axes:
        raise CannotLower("it reduces over the batch axis")
    return axes


@lowers("mean.dim", "sum.dim_IntList", is_fresh=True)
def _mean(call: Call) -> Value:
    divide = "mean" in str(call.traced.target)
    axes, shape = _data_axes(call), call.shape("self")
    keep = bool(call["keepdim"]) or len(axes) == len(shape) - 1
    edge = call.emit(Mean(axes, keep, divide), [call.edge("self")])
    if keep and not call["keepdim"]:
        return call.emit(Reshape(()), [edge])
    return edge


@lowers("linalg_vector_norm", "norm.ScalarOpt_dim")
def _euclidean_norm(call: Call) -> Value:
    """Lowers to the root of a sum of squares; a pass turns it and a division by it into a norm."""
    order: Any = call.get("ord", call.get("p"))
    if order is not None and float(order) != 2:
        raise CannotLower(f"it is a norm of order {order}; only the Euclidean norm is supported")
    axes = _data_axes(call)
    shape = call.shape("self")
    x = call.edge("self")
    square = call.emit(Multiply(), [x, x])
    edge = lower_pointwise("sqrt", call, call.emit(Mean(axes, True, divide=False), [square]))
    if call["keepdim"]:
        return edge
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    return call.emit(Reshape(kept[1:]), [edge])


@lowers("mean", "sum", "max", "min")
def _reduce_everything(call: Call) -> Value:
    raise CannotLower("it reduces over the batch axis, which is outside the supported set")


@lowers("amax", "max.dim")
def _amax(call: Call) -> Value:
    """Lowers to a pool over one window, after moving the reduced axes to the end."""
    shape = call.shape("self")
    axes = _data_axes(call)
    edge = call.edge("self")
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    if (*kept, *axes) != tuple(range(len(shape))):
        edge = call.emit(Permute((*kept, *axes)), [edge])
    window = math.prod(shape[axis] for axis in axes)
    rows = math.prod(shape[axis] for axis in kept[1:])
    edge = call.emit(Reshape((rows, window)), [edge])
    edge = call.emit(_whole_windows(window), [edge])
    result = tuple(
        1 if axis in axes else size
        for axis, size in enumerate(shape)
        if call["keepdim"] or axis not in axes
    )
    edge = call.emit(Reshape(result[1:]), [edge])
    return (edge,) if "max.dim" in str(call.traced.target) else edge


@lowers("upsample_nearest1d", "upsample_nearest2d")
@lowers("_upsample_nearest_exact1d", "_upsample_nearest_exact2d")
def _upsample(call: Call) -> Value:
    edge = call.edge("self" if "self" in call.arguments else "input")
    shape, target = call.builder.shapes[edge], call.result_shape
    mode = "nearest-exact" if "exact" in str(call.traced.target) else "nearest"
    scales = _upsampling_scales(call, len(shape) - 2)
    for axis, factor in zip(range(2, len(shape)), scales, strict=True):
        places = positions(shape[axis])
        if factor is None:
            taken = F.interpolate(places, size=target[axis], mode=mode)
        else:
            taken = F.interpolate(places, scale_factor=factor, mode=mode)
        edge = call.emit(Gather(axis, as_index(taken)), [edge])
    return edge


def _upsampling_scales(call: Call, rank: int) -> list[float | None]:
    factors: Any = call.get("scale_factors")
    if factors:
        return list(factors)
    single: Any = [call.get(name) for name in ("scales_h", "scales_w", "scales")]
    given = [factor for factor in single if factor is not None]
    return list(given) if len(given) == rank else [None] * rank


def positions(extent: int) -> Tensor:
    """Returns the positions along an axis as a tensor for image functions, [1, 1, n]."""
    return torch.arange(extent, dtype=torch.float32).reshape(1, 1, -1)


def as_index(places: Tensor) -> tuple[int, ...]:
    """Returns positions that an image function has moved as the index of a `Gather`."""
    return tuple(int(place) for place in places.reshape(-1))
