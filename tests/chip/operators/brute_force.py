"""A third implementation of every operator: Python integers, one output element at a time."""

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from photomask.chip.target import Rounding

Arrays = dict[str, np.ndarray]


def positions(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, shape))


def filled(shape: tuple[int, ...], element: Callable[[tuple[int, ...]], int]) -> np.ndarray:
    result = np.empty(shape, dtype=object)
    for position in positions(shape):
        result[position] = element(position)
    return result


def at_broadcast(x: np.ndarray, position: tuple[int, ...]) -> int:
    tail = position[len(position) - x.ndim :]
    return int(x[tuple(0 if n == 1 else i for i, n in zip(tail, x.shape, strict=True))])


def rounded(value: int, shift: int, rounding: Rounding) -> int:
    """From the definitions of each mode, on fractions."""
    exact = Fraction(value, 2**shift)
    if rounding is Rounding.TRUNCATE:
        return math.floor(exact)
    if rounding is Rounding.HALF_UP:
        return math.floor(exact + Fraction(1, 2))
    if rounding is Rounding.HALF_EVEN:
        return round(exact)
    if rounding is Rounding.HALF_AWAY:
        away = math.floor(abs(exact) + Fraction(1, 2))
        return away if exact >= 0 else -away
    nudge = (Fraction(2**30, 2**shift) if shift > 31 else 0) * (1 if value >= 0 else -1)
    return math.floor(exact + Fraction(1, 2) + nudge) if shift else value


def weight_at(parameters: Arrays, position: tuple[int, ...]) -> int:
    weight = parameters["weight"]
    value = int(weight[position])
    if "weight_zero_point" in parameters:
        value -= int(parameters["weight_zero_point"][position[0]])
    if "group_multiplier" in parameters:
        groups = parameters["group_multiplier"].shape[1]
        size = math.ceil(weight.shape[1] / groups)
        value *= int(parameters["group_multiplier"][position[0], position[1] // size])
    return value


def convolution(op, inputs, parameters, shape):
    (x,), weight = inputs, parameters["weight"]

    def read(sample: int, channel: int, place: list[int]) -> int:
        inside = all(0 <= i < n for i, n in zip(place, x.shape[2:], strict=True))
        return int(x[(sample, channel, *place)]) if inside else op.padding_value

    def element(position):
        sample, output, *place = position
        first = output // (weight.shape[0] // op.groups) * weight.shape[1]
        total = int(parameters["bias"][output])
        for channel, *tap in positions(weight.shape[1:]):
            at = [
                p * s + k * d - before
                for p, s, k, d, (before, _) in zip(
                    place, op.stride, tap, op.dilation, op.padding, strict=True
                )
            ]
            w = weight_at(parameters, (output, channel, *tap))
            total += w * read(sample, first + channel, at)
        return total

    return filled(shape, element)


def linear(op, inputs, parameters, shape):
    def element(position):
        *row, output = position
        return int(parameters["bias"][output]) + sum(
            weight_at(parameters, (output, i)) * int(inputs[0][(*row, i)])
            for i in range(parameters["weight"].shape[1])
        )

    return filled(shape, element)


def matmul(op, inputs, parameters, shape):
    a, b = inputs
    first, second = op.zero_points

    def element(position):
        *batch, row, column = position
        return sum(
            (at_broadcast(a, (*batch, row, k)) - first)
            * (at_broadcast(b, (*batch, k, column)) - second)
            for k in range(a.shape[-1])
        )

    return filled(shape, element)


def add(op, inputs, parameters, shape):
    return filled(
        shape,
        lambda position: (
            op.bias
            + sum(
                c * at_broadcast(x, position) for c, x in zip(op.coefficients, inputs, strict=True)
            )
        ),
    )


def multiply(op, inputs, parameters, shape):
    (a, b), (za, zb) = inputs, op.zero_points
    return filled(shape, lambda p: (at_broadcast(a, p) - za) * (at_broadcast(b, p) - zb))


def window_elements(op, x, position):
    """The input elements in the window, for padded, partial and dilated windows."""
    rank = len(op.kernel)
    place = position[-rank:]
    taps = []
    for axis in range(rank):
        size = x.shape[-rank:][axis]
        start = place[axis] * op.stride[axis] - op.padding[axis]
        spread = getattr(op, "dilation", (1,) * rank)[axis]
        inside = [start + k * spread for k in range(op.kernel[axis])]
        if getattr(op, "adaptive", False):
            count = op.output_size[axis]
            low = math.floor(Fraction(place[axis] * size, count))
            inside = list(range(low, math.ceil(Fraction((place[axis] + 1) * size, count))))
        taps.append([i for i in inside if 0 <= i < size])
    return [int(x[(*position[:-rank], *tap)]) for tap in itertools.product(*taps)]


def max_pool(op, inputs, parameters, shape):
    return filled(shape, lambda p: max(window_elements(op, inputs[0], p)))


def average_pool(op, inputs, parameters, shape):
    return filled(
        shape, lambda p: sum(v - op.zero_point for v in window_elements(op, inputs[0], p))
    )


def sum_(op, inputs, parameters, shape):
    (x,) = inputs
    totals = {}
    for position in positions(x.shape):
        key = tuple(
            0 if axis in op.axes else i
            for axis, i in enumerate(position)
            if op.keep_axes or axis not in op.axes
        )
        totals[key] = totals.get(key, 0) + int(x[position]) - op.zero_point
    return filled(shape, totals.__getitem__)


def requantize(op, inputs, parameters, shape):
    def element(position):
        m = at_broadcast(parameters["multiplier"], position)
        s = at_broadcast(parameters["shift"], position)
        y = rounded((int(inputs[0][position]) + op.offset) * m, s, op.rounding) + op.zero_point
        return max(op.low, min(op.high, y))

    return filled(shape, element)


def clamp(op, inputs, parameters, shape):
    return filled(shape, lambda p: max(op.low, min(op.high, int(inputs[0][p]))))


def lookup(op, inputs, parameters, shape):
    table = parameters["table"].tolist()
    return filled(shape, lambda p: table[int(inputs[0][p]) - op.first])


def interpolate(op, inputs, parameters, shape):
    """The line through the two entries around an element, on fractions."""
    table, step = parameters["table"].tolist(), 1 << op.step_bits

    def element(position):
        place = Fraction(int(inputs[0][position]) - op.first, step)
        start = math.floor(place)
        share = place - start
        return int(((1 - share) * table[start] + share * table[start + 1]) * step)

    return filled(shape, element)


def concatenate(op, inputs, parameters, shape):
    def element(position):
        at = position[op.axis]
        for x in inputs:
            if at < x.shape[op.axis]:
                place = (*position[: op.axis], at, *position[op.axis + 1 :])
                return at_broadcast(x, place)
            at -= x.shape[op.axis]
        raise AssertionError(position)

    return filled(shape, element)


def reshape(op, inputs, parameters, shape):
    flat = [int(inputs[0][p]) for p in positions(inputs[0].shape)]
    result = np.empty(shape, dtype=object)
    for position, value in zip(positions(shape), flat, strict=True):
        result[position] = value
    return result


def permute(op, inputs, parameters, shape):
    result = np.empty(shape, dtype=object)
    for position in positions(inputs[0].shape):
        result[tuple(position[axis] for axis in op.order)] = int(inputs[0][position])
    return result


def slice_(op, inputs, parameters, shape):
    kept = range(inputs[0].shape[op.axis])[op.start : op.stop : op.step]

    def element(position):
        return int(
            inputs[0][(*position[: op.axis], kept[position[op.axis]], *position[op.axis + 1 :])]
        )

    return filled(shape, element)


def pad(op, inputs, parameters, shape):
    (x,) = inputs

    def element(position):
        source = [i - before for i, (before, _) in zip(position, op.amounts, strict=True)]
        inside = all(0 <= i < n for i, n in zip(source, x.shape, strict=True))
        return int(x[tuple(source)]) if inside else op.value

    return filled(shape, element)


def gather(op, inputs, parameters, shape):
    index = parameters["index"].tolist()

    def element(position):
        place = (*position[: op.axis], index[position[op.axis]], *position[op.axis + 1 :])
        return int(inputs[0][place])

    return filled(shape, element)


def constant(op, inputs, parameters, shape):
    return filled(shape, lambda p: int(parameters["value"][p]))


def softmax(op, inputs, parameters, shape):
    """From fractions: the reciprocal is the largest integer below the quotient."""
    table, x = parameters["table"].tolist(), inputs[0]
    masks = [*inputs[1:], *(value for role, value in parameters.items() if role == "mask")]

    def exponents(row):
        places = [(*row, i) for i in range(shape[-1])]
        seen = [all(at_broadcast(mask, place) for mask in masks) for place in places]
        codes = [int(x[place]) for place in places]
        peak = max((c for c, s in zip(codes, seen, strict=True) if s), default=0)
        return [
            table[min(peak - c, len(table) - 1)] if s else 0
            for c, s in zip(codes, seen, strict=True)
        ]

    def element(position):
        row = exponents(position[:-1])
        if not sum(row):
            return 0
        reciprocal = math.floor(Fraction(2**op.reciprocal_bits, sum(row)))
        exact = Fraction(
            row[position[-1]] * reciprocal, 2 ** (op.reciprocal_bits - op.fraction_bits)
        )
        return math.floor(exact + Fraction(1, 2))

    return filled(shape, element)


def normalize(op, inputs, parameters, shape):
    shifts = parameters.get("channel_shift", np.zeros(op.terms, int)).tolist()

    def element(position):
        row = [
            (int(inputs[0][(*position[:-1], c)]) - op.zero_point) * 2 ** shifts[c]
            for c in range(op.terms)
        ]
        total = sum(row) if op.centred else 0
        scaled = [(op.terms if op.centred else 1) * v - total for v in row]
        squares = sum(v * v for v in scaled) + op.epsilon
        power = (48 - squares.bit_length()) // 2
        root = math.isqrt(math.floor(squares * Fraction(4) ** power))
        inverse = 2**47 // root
        c = position[-1]
        exact = Fraction(scaled[c] * inverse) * Fraction(2) ** (power + op.fraction_bits - 47)
        normal = math.floor(exact + Fraction(1, 2))
        return normal * int(parameters["gain"][c]) + int(parameters["bias"][c])

    return filled(shape, element)


def embedding(op, inputs, parameters, shape):
    table = parameters["table"]
    return filled(shape, lambda p: int(table[int(inputs[0][p[:-1]]), p[-1]]))


BRUTE_FORCE = {
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
