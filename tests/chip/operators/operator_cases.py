"""Random legal cases of every operator, by kind."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from benchmarks.random_program.source import Source

from photomask.chip.formats import Interval
from photomask.chip.operators import (
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    Constant,
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
    Operator,
    Pad,
    Permute,
    Requantize,
    Reshape,
    Slice,
    Softmax,
    Sum,
)
from photomask.chip.target import Rounding


@dataclass
class Case:
    """An operator, its inputs with the intervals they come from, and its parameters."""

    operator: Operator
    inputs: list[np.ndarray]
    intervals: list[Interval]
    parameters: dict[str, np.ndarray] = field(default_factory=dict)


def some_weights(source: Source, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    parameters = {
        "weight": source.codes(source.interval(2, 4, 8, 16), shape),
        "bias": source.codes(source.interval(8, 8, 20, 26, 36), shape[:1]),
    }
    if source.chance():
        parameters["weight_zero_point"] = source.codes(source.interval(4), shape[:1])
    if source.chance():
        groups = source.integer(1, shape[1])
        parameters["group_multiplier"] = source.codes(Interval(0, 15), (shape[0], groups))
    return parameters


def convolution(source: Source) -> Case:
    rank, groups = source.pick(1, 2), source.pick(1, 1, 2, 3)
    per_group, outputs = source.integer(1, 3), groups * source.integer(1, 2)
    kernel = [source.integer(1, 3) for _ in range(rank)]
    dilation = tuple(source.integer(1, 2) for _ in range(rank))
    padding = tuple((source.integer(0, 2), source.integer(0, 2)) for _ in range(rank))
    if source.chance():
        padding = tuple((before, before) for before, _ in padding)
    spatial = [
        max(1, (k - 1) * d + 1 - sum(p)) + source.integer(0, 4)
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    x = source.interval()
    operator = Convolution(
        stride=tuple(source.integer(1, 3) for _ in range(rank)),
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_value=source.pick(0, source.inside(x)),
    )
    shape = (source.integer(1, 2), groups * per_group, *spatial)
    parameters = some_weights(source, (outputs, per_group, *kernel))
    return Case(operator, [source.codes(x, shape)], [x], parameters)


def linear(source: Source) -> Case:
    shape, x = source.shape(source.integer(2, 4)), source.interval()
    parameters = some_weights(source, (source.integer(1, 4), shape[-1]))
    return Case(Linear(), [source.codes(x, shape)], [x], parameters)


def matmul(source: Source) -> Case:
    a, b = source.interval(2, 8, 16, 25, 30), source.interval(2, 8, 16, 25)
    batch, heads, m, k, n = (source.integer(1, 4) for _ in range(5))
    first, second = (batch, m, k), (source.pick(1, batch), k, n)
    if source.chance():
        first, second = (batch, heads, m, k), (batch, source.pick(1, heads), k, n)
    operator = Matmul(zero_points=(source.inside(a), source.pick(0, source.inside(b))), terms=k)
    return Case(operator, [source.codes(a, first), source.codes(b, second)], [a, b])


def broadcastable(source: Source, count: int, *widths: int) -> tuple[list, list]:
    shape = source.shape(source.integer(2, 4))
    shapes = [shape, *(tuple(source.pick(1, n, n) for n in shape) for _ in range(count - 1))]
    source.rng.shuffle(shapes)
    intervals = [source.interval(*widths) for _ in range(count)]
    inputs = [source.codes(i, tuple(s)) for i, s in zip(intervals, shapes, strict=True)]
    return inputs, intervals


def add(source: Source) -> Case:
    inputs, intervals = broadcastable(source, source.integer(1, 3))
    widest = source.pick(1, 127, 1 << 16)
    coefficients = tuple(source.integer(-widest, widest) for _ in inputs)
    bias = source.inside(source.interval(8, 8, 20, 30))
    return Case(Add(coefficients=coefficients, bias=bias), inputs, intervals)


def multiply(source: Source) -> Case:
    inputs, intervals = broadcastable(source, 2, 2, 8, 8, 16, 25, 30)
    zero_points = (source.inside(intervals[0]), source.inside(intervals[1]))
    return Case(Multiply(zero_points=zero_points), inputs, intervals)


def windows(source: Source, dilated: bool) -> tuple[dict, tuple[int, ...]]:
    """Attributes of a pooling and the spatial sizes it fits, partial last windows included."""
    attributes = {name: [] for name in ("kernel", "stride", "padding", "output_size", "dilation")}
    spatial = []
    for _ in range(source.pick(1, 2)):
        kernel, stride = source.integer(1, 3), source.integer(1, 3)
        dilation = source.integer(1, 2) if dilated else 1
        before = source.integer(0, kernel // 2)
        span = (kernel - 1) * dilation + 1
        size = max(span - before, dilation) + source.integer(0, 5)
        count = (size + 2 * before - span) // stride + 1
        if source.chance() and count * stride - before < size:
            count += 1
        for name, value in zip(attributes, (kernel, stride, before, count, dilation), strict=True):
            attributes[name].append(value)
        spatial.append(size)
    shape = (source.integer(1, 2), source.integer(1, 3), *spatial)
    return {name: tuple(values) for name, values in attributes.items()}, shape


def max_pool(source: Source) -> Case:
    attributes, shape = windows(source, dilated=True)
    x = source.interval(2, 8, 16, 30, 40, 60)
    return Case(MaxPool(**attributes), [source.codes(x, shape)], [x])


def average_pool(source: Source) -> Case:
    attributes, shape = windows(source, dilated=False)
    del attributes["dilation"]
    x, adaptive = source.interval(2, 8, 16, 25, 40, 58), source.chance()
    if adaptive:
        count = tuple(source.integer(1, n + 1) for n in shape[2:])
        kernel = tuple(-(-n // c) + 1 for n, c in zip(shape[2:], count, strict=True))
        attributes |= {"output_size": count, "kernel": kernel}
        attributes |= {"stride": kernel, "padding": (0,) * len(count)}
    operator = AveragePool(**attributes, zero_point=source.inside(x), adaptive=adaptive)
    return Case(operator, [source.codes(x, shape)], [x])


def sum_(source: Source) -> Case:
    shape, x = source.shape(source.integer(3, 4)), source.interval(2, 8, 16, 25, 40, 58)
    axes = source.pick((1,), (2,), (1, 2), (2, 1), tuple(range(2, len(shape))))
    terms = int(np.prod([shape[axis] for axis in axes]))
    operator = Sum(axes=axes, keep_axes=source.chance(), zero_point=source.inside(x), terms=terms)
    return Case(operator, [source.codes(x, shape)], [x])


def requantize(source: Source) -> Case:
    shape, x = source.shape(source.integer(2, 4)), source.interval(8, 12, 16, 20, 24, 31)
    ones = (1,) * (len(shape) - 2)
    factors = source.pick((1,), (shape[1], *ones), shape[1:], (shape[-1],))
    bits = source.integer(1, 31)
    y = source.interval(2, 4, 8, 16, 30)
    # Around the shift that brings the input to the output's width, and both ends.
    middle = max(0, x.bits + bits - y.bits)
    shift = source.rng.integers(max(0, middle - 4), min(62, middle + 4), factors, endpoint=True)
    if source.integer(0, 3) == 0:
        shift = source.rng.integers(0, 62, factors, endpoint=True)
    operator = Requantize(
        rounding=source.pick(*Rounding),
        offset=source.pick(0, -source.inside(x)),
        zero_point=source.pick(0, source.inside(y)),
        low=y.low,
        high=y.high,
    )
    multiplier = source.codes(Interval(0, (1 << bits) - 1), factors)
    if source.chance():
        multiplier |= 1 << (bits - 1)
    parameters = {"multiplier": multiplier, "shift": shift}
    return Case(operator, [source.codes(x, shape)], [x], parameters)


def clamp(source: Source) -> Case:
    x = source.interval(2, 8, 25, 30, 40, 60)
    low = source.integer(x.low - 9, x.high)
    high = source.integer(low, x.high + 9)
    shape = source.shape(source.integer(2, 4))
    return Case(Clamp(low=low, high=high), [source.codes(x, shape)], [x])


def lookup(source: Source) -> Case:
    x = source.interval(2, 4, 8)
    first = x.low - source.integer(0, 3)
    table = source.codes(source.interval(), (x.high - first + 1 + source.integer(0, 3),))
    shape = source.shape(source.integer(2, 4))
    return Case(Lookup(first=first), [source.codes(x, shape)], [x], {"table": table})


def interpolate(source: Source) -> Case:
    x, step_bits = source.interval(2, 4, 8, 12), source.integer(1, 6)
    first = x.low - source.integer(0, 5)
    cells = (x.high - first >> step_bits) + 1 + source.integer(0, 2)
    table = source.codes(source.interval(), (cells + 1,))
    shape = source.shape(source.integer(2, 4))
    operator = Interpolate(first=first, step_bits=step_bits)
    return Case(operator, [source.codes(x, shape)], [x], {"table": table})


def concatenate(source: Source) -> Case:
    shape = source.shape(source.integer(2, 4))
    axis, count = source.integer(1, len(shape) - 1), source.integer(1, 3)
    intervals = [source.interval(8, 30, 60) for _ in range(count)]
    shapes = [(*shape[:axis], source.integer(1, 3), *shape[axis + 1 :]) for _ in intervals]
    if count > 1 and source.chance():
        shapes[-1] = (1, *shapes[-1][1:])
    inputs = [source.codes(i, s) for i, s in zip(intervals, shapes, strict=True)]
    return Case(Concatenate(axis=axis), inputs, intervals)


def moved(source: Source, operator: Operator, shape: tuple[int, ...], **parameters) -> Case:
    x = source.interval(8, 30, 60)
    return Case(operator, [source.codes(x, shape)], [x], parameters)


def reshape(source: Source) -> Case:
    n, a, b, c = source.shape(4)
    target = source.pick((a * b * c,), (c, b * a), (a, c, 1, b), (b * c,))
    return moved(source, Reshape(shape=target), (n, a, b, c))


def permute(source: Source) -> Case:
    shape = source.shape(source.integer(2, 4))
    order = (0, *(1 + source.rng.permutation(len(shape) - 1)).tolist())
    return moved(source, Permute(order=order), shape)


def slice_(source: Source) -> Case:
    shape = source.shape(source.integer(2, 4))
    axis = source.integer(1, len(shape) - 1)
    start = source.integer(-shape[axis], shape[axis] - 1)
    stop = source.pick((1 << 63) - 1, start % shape[axis] + source.integer(1, 4))
    return moved(source, Slice(axis=axis, start=start, stop=stop, step=source.integer(1, 3)), shape)


def pad(source: Source) -> Case:
    shape = tuple(n + 2 for n in source.shape(source.integer(2, 4)))
    amounts = [(source.integer(-1, 2), source.integer(-1, 2)) for _ in shape[1:]]
    value = source.pick(0, -3, 1 << 30, (1 << 60) + 1)
    return moved(source, Pad(amounts=((0, 0), *amounts), value=value), shape)


def gather(source: Source) -> Case:
    shape = source.shape(source.integer(2, 4))
    axis = source.integer(1, len(shape) - 1)
    index = source.rng.integers(0, shape[axis], source.integer(1, 6))
    return moved(source, Gather(axis=axis), shape, index=index)


def constant(source: Source) -> Case:
    value = source.codes(source.interval(8, 30, 60), source.shape(source.integer(1, 4), batch=1))
    return Case(Constant(), [], [], {"value": value})


def softmax(source: Source) -> Case:
    shape, x = source.shape(source.integer(2, 4)), source.interval(2, 8, 8, 12)
    table = np.sort(source.codes(Interval(0, 1 << source.integer(0, 20)), (source.integer(1, 40),)))
    table = np.maximum(table[::-1], [1] + [0] * (len(table) - 1))
    fraction_bits = source.integer(1, 24)
    least = max(fraction_bits + 1, (int(table[0]) * shape[-1]).bit_length())
    operator = Softmax(
        fraction_bits=fraction_bits, reciprocal_bits=min(52, source.integer(least, least + 20))
    )
    case = Case(operator, [source.codes(x, shape)], [x], {"table": table})
    mask = source.rng.integers(0, 2, tuple(source.pick(1, size) for size in shape[1:]))
    kind = source.integer(0, 3)
    if kind & 1:
        case.parameters["mask"] = mask
    if kind & 2:
        mask = source.rng.integers(0, 2, mask.shape)
        case.inputs.append(np.broadcast_to(mask, (shape[0], *mask.shape)).copy())
        case.intervals.append(Interval(0, 1))
    return case


def normalize(source: Source) -> Case:
    shape, x = source.shape(source.integer(2, 4)), source.interval(2, 8, 8, 16)
    terms = shape[-1]
    operator = Normalize(
        terms=terms,
        centred=source.chance(),
        zero_point=source.pick(0, source.inside(x)),
        epsilon=source.pick(1, source.integer(1, 1000), 1 << 40),
        fraction_bits=source.integer(1, 20),
    )
    gains = source.interval(2, 8, 16)
    parameters = {
        "gain": source.codes(gains, (terms,)),
        "bias": source.codes(source.interval(8, 30), (terms,)),
    }
    if source.chance():
        parameters["channel_shift"] = source.rng.integers(0, 5, terms)
    codes = source.codes(x, shape)
    if source.chance():
        codes = np.broadcast_to(codes[..., :1], shape).copy()
    return Case(operator, [codes], [x], parameters)


def embedding(source: Source) -> Case:
    table = source.codes(source.interval(), (source.integer(1, 9), source.integer(1, 5)))
    x = Interval(0, source.integer(0, len(table) - 1))
    shape = source.shape(source.integer(1, 3))
    return Case(Embedding(), [source.codes(x, shape)], [x], {"table": table})


GENERATORS: dict[str, Callable[[Source], Case]] = {
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
