"""Random steps that fit the program so far, of every operator."""

import math
from collections.abc import Callable

import numpy as np

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.operators import (
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    Convolution,
    Embedding,
    Gather,
    Interpolate,
    Linear,
    Lookup,
    Matmul,
    MaxPool,
    Multiply,
    Normalize,
    Pad,
    Permute,
    Reshape,
    Slice,
    Softmax,
    Sum,
)
from photomask.chip.program import Edge

from .growth import MOST_STEPS, Growth, IllegalError, kept

WIDEST_ACTIVATION = 16


def weights(grow: Growth, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Draws weights, biases and sometimes zero points and groups."""
    source = grow.source
    bits = source.pick(8, 16, 16) if grow.is_wide else source.pick(1, 2, 4, 8, 8, 16)
    low = source.pick(0, -(1 << (bits - 1)))
    tensors = {
        "weight": source.codes(Interval(low, low + (1 << bits) - 1), shape),
        "bias": source.codes(source.interval(4, 8, 16, min(24, grow.target.bias_bits)), shape[:1]),
    }
    if source.integer(0, 3) == 0:
        tensors["weight_zero_point"] = source.codes(source.interval(2, 4), shape[:1])
    if source.integer(0, 3) == 0:
        groups = source.integer(1, shape[1])
        tensors["group_multiplier"] = source.codes(Interval(0, 15), (shape[0], groups))
    return tensors


def convolution(grow: Growth) -> None:
    """Appends a step: convolution."""
    source, x = grow.source, grow.pick_edge(3, 4, widest=WIDEST_ACTIVATION)
    channels, spatial = x.shape[1], x.shape[2:]
    divisors = [n for n in range(1, channels + 1) if channels % n == 0]
    groups = source.pick(1, 1, channels, source.pick(*divisors))
    kernel = [source.integer(1, 4) for _ in spatial]
    padding = tuple((source.integer(0, 2), source.integer(0, 3)) for _ in spatial)
    if source.chance():
        padding = tuple((k // 2, k // 2) for k in kernel)
    operator = Convolution(
        stride=tuple(source.pick(1, 1, 2, 3) for _ in spatial),
        padding=padding,
        dilation=tuple(source.pick(1, 1, 1, 2) for _ in spatial),
        groups=groups,
        padding_value=source.pick(0, source.inside(x.interval)),
    )
    shape = (groups * source.integer(1, 5), channels // groups, *kernel)
    grow.finish(grow.append(operator, [x], weights(grow, shape)))


def linear(grow: Growth) -> None:
    """Appends a step: linear."""
    x = grow.pick_edge(widest=WIDEST_ACTIVATION)
    grow.finish(
        grow.append(Linear(), [x], weights(grow, (grow.source.integer(1, 12), x.shape[-1])))
    )


def matmul(grow: Growth) -> None:
    """By an edge transposed, so that the summed axes agree, or by a constant."""
    source, a = grow.source, grow.pick_edge(3, 4, widest=WIDEST_ACTIVATION)
    if len(grow.steps) + 2 > MOST_STEPS:
        raise IllegalError("no room for two steps")
    if source.chance():
        rank = len(a.shape)
        order = (*range(rank - 2), rank - 1, rank - 2)
        b = grow.append(Permute(order=order), [a], format=kept(a))
    else:
        leading = tuple(source.pick(1, n) for n in a.shape[:-2])
        b = grow.constant_like((*leading, a.shape[-1], source.integer(1, 5)))
    zero_points = (source.pick(0, source.inside(a.interval)), source.inside(b.interval))
    grow.finish(grow.append(Matmul(zero_points=zero_points, terms=a.shape[-1]), [a, b]))


def partner(grow: Growth, x: Edge, widest: int) -> Edge:
    """An edge that broadcasts against `x`: another one, or a constant."""
    fitting = [
        edge
        for edge in grow.edges.values()
        if len(edge.shape) == len(x.shape)
        and edge.format.bits <= widest
        and all(n == m or 1 in (n, m) for n, m in zip(edge.shape[1:], x.shape[1:], strict=True))
    ]
    if fitting and grow.source.integer(0, 4):
        return grow.source.pick(*fitting)
    return grow.constant_like(tuple(grow.source.pick(1, n, n) for n in x.shape))


def add(grow: Growth) -> None:
    """Appends a step: add."""
    source, x = grow.source, grow.pick_edge(widest=source_width(grow))
    others = [partner(grow, x, WIDEST_ACTIVATION) for _ in range(source.pick(0, 1, 1, 1, 2))]
    widest = source.pick(1, 127, 1 << 12)
    coefficients = tuple(source.integer(-widest, widest) for _ in [x, *others])
    operator = Add(coefficients=coefficients, bias=source.integer(-(1 << 14), 1 << 14))
    grow.finish(grow.append(operator, [x, *others]))


def source_width(grow: Growth) -> int:
    """Activations alone, or accumulators too."""
    return grow.source.pick(WIDEST_ACTIVATION, WIDEST_ACTIVATION, 64)


def multiply(grow: Growth) -> None:
    """Appends a step: multiply."""
    source, x = grow.source, grow.pick_edge(widest=WIDEST_ACTIVATION)
    y = partner(grow, x, WIDEST_ACTIVATION)
    zero_points = (source.inside(x.interval), source.pick(0, source.inside(y.interval)))
    grow.finish(grow.append(Multiply(zero_points=zero_points), [x, y]))


def window(grow: Growth, size: int, dilation: int) -> tuple[int, int, int, int]:
    """Kernel, stride, padding and count of windows; partial last ones included."""
    source = grow.source
    kernel, stride = source.integer(1, 3), source.integer(1, 3)
    before = source.integer(0, kernel // 2)
    count = (size + 2 * before - (kernel - 1) * dilation - 1) // stride + 1
    if source.chance() and count * stride - before < size:
        count += 1
    if count < 1:
        raise IllegalError("no window")
    return kernel, stride, before, count


def max_pool(grow: Growth) -> None:
    """Appends a step: max pool."""
    x = grow.pick_edge(3, 4, widest=source_width(grow))
    dilation = tuple(grow.source.pick(1, 1, 2) for _ in x.shape[2:])
    windows = [window(grow, n, d) for n, d in zip(x.shape[2:], dilation, strict=True)]
    kernel, stride, padding, count = zip(*windows, strict=True)
    operator = MaxPool(
        kernel=kernel, stride=stride, padding=padding, output_size=count, dilation=dilation
    )
    grow.append(operator, [x], format=kept(x))


def average_pool(grow: Growth) -> None:
    """Appends a step: average pool."""
    source, x = grow.source, grow.pick_edge(3, 4, widest=WIDEST_ACTIVATION)
    adaptive = source.chance()
    windows = [window(grow, n, 1) for n in x.shape[2:]]
    kernel, stride, padding, count = zip(*windows, strict=True)
    if adaptive:
        count = tuple(source.integer(1, n + 1) for n in x.shape[2:])
        kernel = stride = tuple(-(-n // c) + 1 for n, c in zip(x.shape[2:], count, strict=True))
        padding = (0,) * len(count)
    operator = AveragePool(
        kernel=kernel,
        stride=stride,
        padding=padding,
        output_size=count,
        zero_point=source.pick(0, source.inside(x.interval)),
        adaptive=adaptive,
    )
    grow.finish(grow.append(operator, [x]))


def sum_(grow: Growth) -> None:
    """Appends a step: sum."""
    source, x = grow.source, grow.pick_edge(3, 4, widest=WIDEST_ACTIVATION)
    axes = source.pick((1,), (len(x.shape) - 1,), tuple(range(2, len(x.shape))), (2, 1))
    keep = source.chance() or len(x.shape) - len(axes) < 2
    terms = math.prod(x.shape[axis] for axis in axes)
    zero_point = source.pick(0, source.inside(x.interval))
    operator = Sum(axes=axes, keep_axes=keep, zero_point=zero_point, terms=terms)
    grow.finish(grow.append(operator, [x]))


def requantize(grow: Growth) -> None:
    """Appends a step: requantize."""
    grow.requantize_edge(grow.pick_edge())


def clamp(grow: Growth) -> None:
    """Appends a step: clamp."""
    source, x = grow.source, grow.pick_edge(widest=source_width(grow))
    low = source.integer(x.low - 3, x.high)
    operator = Clamp(low=low, high=source.integer(low, x.high + 3))
    format = kept(x)
    if format and source.chance():
        format = IntFormat.holding(operator.output_interval([x.interval], {}))
    grow.append(operator, [x], format=format)


def lookup(grow: Growth) -> None:
    """Appends a step: lookup."""
    source, x = grow.source, grow.pick_edge(widest=11)
    format = grow.activation_format()
    table = source.codes(format.interval, (1 << x.format.bits,))
    grow.append(Lookup(first=x.format.low), [x], {"table": table}, format)


def interpolate(grow: Growth) -> None:
    """Appends a step: interpolate."""
    source, x = grow.source, grow.pick_edge(widest=WIDEST_ACTIVATION)
    bits = source.integer(max(1, x.format.bits - 6), 15)
    cells = (x.format.high - x.format.low >> bits) + 1
    table = source.codes(source.interval(2, 8, 12), (cells + 1,))
    operator = Interpolate(first=x.format.low, step_bits=bits)
    grow.finish(grow.append(operator, [x], {"table": table}))


def embedding(grow: Growth) -> None:
    """Appends a step: embedding."""
    source, x = grow.source, grow.pick_edge(1, 2, 3, widest=6)
    if x.format.signed:
        raise IllegalError("rows are not negative")
    format = grow.activation_format()
    table = source.codes(format.interval, (1 << x.format.bits, source.integer(1, 5)))
    grow.append(Embedding(), [x], {"table": table}, format)


def softmax(grow: Growth) -> None:
    """Masked by a constant, by another edge, by both, or not."""
    source, x = grow.source, grow.pick_edge(widest=WIDEST_ACTIVATION)
    table = np.sort(source.codes(Interval(0, 1 << 15), (source.integer(1, 60),)))[::-1]
    operator = Softmax(fraction_bits=source.integer(1, 15), reciprocal_bits=40)
    tensors = {"table": np.maximum(table, [1] + [0] * (len(table) - 1))}
    if source.chance():
        shape = tuple(source.pick(1, size) for size in x.shape[1:])
        tensors["mask"] = source.rng.integers(0, 2, shape)
    masks = [
        edge
        for edge in grow.edges.values()
        if edge.shape == x.shape and grow.grows(edge.name) <= grow.grows(x.name)
    ]
    inputs = [x, source.pick(*masks)] if source.chance() else [x]
    grow.finish(grow.append(operator, inputs, tensors))


def normalize(grow: Growth) -> None:
    """Appends a step: normalize."""
    source, x = grow.source, grow.pick_edge(widest=WIDEST_ACTIVATION)
    terms = x.shape[-1]
    operator = Normalize(
        terms=terms,
        centred=source.chance(),
        zero_point=source.pick(0, source.inside(x.interval)),
        epsilon=source.pick(1, source.integer(1, 1 << 20)),
        fraction_bits=source.integer(1, 14),
    )
    tensors = {
        "gain": source.codes(source.interval(2, 8), (terms,)),
        "bias": source.codes(source.interval(8, 16), (terms,)),
    }
    if source.chance():
        tensors["channel_shift"] = source.rng.integers(0, 3, terms)
    grow.finish(grow.append(operator, [x], tensors))


def concatenate(grow: Growth) -> None:
    """Appends a step: concatenate."""
    source, x = grow.source, grow.pick_edge(widest=source_width(grow))
    axis = source.integer(1, len(x.shape) - 1)
    fitting = [
        edge
        for edge in grow.edges.values()
        if edge.format == x.format
        and len(edge.shape) == len(x.shape)
        and edge.shape[:axis] + edge.shape[axis + 1 :] == x.shape[:axis] + x.shape[axis + 1 :]
    ]
    parts = [x, *(source.pick(*fitting) for _ in range(source.pick(0, 1, 1, 2)))]
    source.rng.shuffle(parts)  # type: ignore[arg-type]
    grow.append(Concatenate(axis=axis), parts, format=kept(x))


def reshape(grow: Growth) -> None:
    """Appends a step: reshape."""
    source, x = grow.source, grow.pick_edge(widest=source_width(grow))
    rows, *rest = x.shape
    count = math.prod(rest)
    shape = source.pick((count,), tuple(reversed(rest)), (*rest, 1), (rest[0], count // rest[0]))
    if rows == 1 and source.integer(0, 5) == 0:
        shape = tuple(rest[1:]) if len(rest) > 2 else shape  # rows of a batch
    grow.append(Reshape(shape=shape[:3] if len(shape) > 3 else shape), [x], format=kept(x))


def permute(grow: Growth) -> None:
    """Appends a step: permute."""
    x = grow.pick_edge(widest=source_width(grow))
    order = (0, *(1 + grow.source.rng.permutation(len(x.shape) - 1)).tolist())
    grow.append(Permute(order=order), [x], format=kept(x))


def slice_(grow: Growth) -> None:
    """Appends a step: slice."""
    source, x = grow.source, grow.pick_edge(widest=source_width(grow))
    axis = source.integer(1, len(x.shape) - 1)
    start = source.integer(-x.shape[axis], x.shape[axis] - 1)
    stop = source.pick((1 << 63) - 1, start % x.shape[axis] + source.integer(1, 4))
    operator = Slice(axis=axis, start=start, stop=stop, step=source.integer(1, 3))
    grow.append(operator, [x], format=kept(x))


def pad(grow: Growth) -> None:
    """Appends a step: pad."""
    source, x = grow.source, grow.pick_edge(widest=source_width(grow))
    amounts = [(source.integer(-1, 2), source.integer(-1, 2)) for _ in x.shape[1:]]
    value = source.pick(x.low, x.high, source.inside(x.interval))
    grow.append(Pad(amounts=((0, 0), *amounts), value=value), [x], format=kept(x))


def gather(grow: Growth) -> None:
    """Appends a step: gather."""
    source, x = grow.source, grow.pick_edge(widest=source_width(grow))
    axis = source.integer(1, len(x.shape) - 1)
    index = source.rng.integers(0, x.shape[axis], source.integer(1, 8))
    grow.append(Gather(axis=axis), [x], {"index": index}, kept(x))


def constant(grow: Growth) -> None:
    """Appends a step: constant."""
    grow.constant_like(grow.pick_edge().shape)


GROWTHS: dict[str, Callable[[Growth], None]] = {
    "add": add,
    "average_pool": average_pool,
    "clamp": clamp,
    "concatenate": concatenate,
    "constant": constant,
    "convolution": convolution,
    "embedding": embedding,
    "gather": gather,
    "interpolate": interpolate,
    "linear": linear,
    "lookup": lookup,
    "matmul": matmul,
    "max_pool": max_pool,
    "multiply": multiply,
    "normalize": normalize,
    "pad": pad,
    "permute": permute,
    "requantize": requantize,
    "reshape": reshape,
    "slice": slice_,
    "softmax": softmax,
    "sum": sum_,
}
