"""Writes the operators of transformers: softmax, norms and embeddings."""

from collections.abc import Callable

import numpy as np

from photomask.chip.forms.c.context import C, Context, broadcast, read
from photomask.chip.forms.c.loops import Operand, nest, scoped, total
from photomask.chip.forms.c.requantize import rounding_kernel
from photomask.chip.forms.c.text import indent, literal
from photomask.chip.operators import Embedding, Normalize, Softmax
from photomask.chip.operators.normalize import INVERSE_BITS, SQUARE_BITS
from photomask.chip.target import Rounding

ACC = "int64_t"


@C.of(Softmax)
def softmax(operator: Softmax, context: Context) -> list[str]:
    """Returns loops over rows that find the peak, sum the exponents, and divide by the sum.

    The division multiplies each exponent by the reciprocal of the sum.
    """
    values, x = context.parameters["table"], context.inputs[0]
    table = context.constant("table", values, "table", "int32_t" if values[0] < 1 << 31 else ACC)
    shift = operator.reciprocal_bits - operator.fraction_bits
    extra, conditions = {}, []
    if "mask" in context.parameters:
        mask = context.parameters["mask"]
        name = context.constant("mask", (mask != 0).astype(np.int64), "mask", "uint8_t")
        padded = (1,) * (len(x.shape) - mask.ndim) + mask.shape
        extra = {"mask": _row_major(padded)}
        conditions.append(f"{name}[{{mask}}] != 0")
    if len(context.inputs) == 2:
        conditions.append("b[{b}] != 0")
    seen = " && ".join(conditions)

    def body(at: dict[str, str]) -> list[str]:
        element = read(context.input_names[0], at[context.input_names[0]], x, ACC)
        condition = seen.format(**at)
        count = x.shape[-1]
        exponent = f"{table}[distance > {len(values) - 1} ? {len(values) - 1} : distance]"
        visit = [f"const {ACC} distance = peak - {element};", f"total += {exponent};"]
        store = [
            f"const {ACC} distance = peak - {element};",
            f"const {ACC} share = ({exponent} * reciprocal + {literal(1 << shift - 1, ACC)}) >> "
            f"{shift};",
            context.store.line("share", ACC, at),
        ]
        if condition:
            hidden = ["} else {", *indent([context.store.line("0", "int32_t", at)])]
            visit = [f"if ({condition}) {{", *indent(visit), "}"]
            store = [f"if ({condition}) {{", *indent(store), *hidden, "}"]
        find = f"if ({f'{condition} && ' if condition else ''}{element} > peak) {{"
        return [
            f"{ACC} peak = {literal(x.interval.low, ACC)};",
            *_along(count, [find, f"    peak = {element};", "}"]),
            f"{ACC} total = 0;",
            *_along(count, visit),
            f"const {ACC} reciprocal = total > 0 ? "
            f"{literal(1 << operator.reciprocal_bits, ACC)} / total : 0;",
            *_along(count, store),
        ]

    return _rows(context, body, extra)


@C.of(Normalize)
def normalize(operator: Normalize, context: Context) -> list[str]:
    """Returns loops over rows that sum squares, take the root, and multiply by its reciprocal."""
    x = context.inputs[0]
    gain = context.constant("gain", context.parameters["gain"], "gain")
    bias = context.constant("bias", context.parameters["bias"], "bias")
    shifts = context.parameters.get("channel_shift")
    factor = ""
    if shifts is not None:
        factor = f" * {context.constant('factor', np.int64(1) << shifts, 'channel factors')}[t]"
    _root_kernels(context)
    rounded = rounding_kernel(context, Rounding.HALF_UP, "64")

    def body(at: dict[str, str]) -> list[str]:
        element = read("x", at["x"], x, ACC)
        zero = f" - {literal(operator.zero_point, ACC)}" if operator.zero_point else ""
        centred = f"({element}{zero}){factor}" if zero or factor else element
        distance = f"{operator.terms} * {centred} - sum" if operator.centred else centred
        declared = f"const {ACC} d = {distance};"
        summing = [f"{ACC} sum = 0;", *_along(operator.terms, [f"sum += {centred};"])]
        return [
            *(summing if operator.centred else []),
            f"{ACC} squares = {literal(operator.epsilon, ACC)};",
            *_along(operator.terms, [declared, "squares += d * d;"]),
            "const int power = root_power((uint64_t)squares);",
            f"const {ACC} inverse = inverse_root((uint64_t)squares, power);",
            *_along(
                operator.terms,
                [
                    declared,
                    f"const {ACC} normal = {rounded}(d * inverse, "
                    f"{INVERSE_BITS - operator.fraction_bits} - power);",
                    context.store.line(f"normal * {gain}[t] + {bias}[t]", ACC, at),
                ],
            ),
        ]

    return _rows(context, body)


@C.of(Embedding)
def embedding(operator: Embedding, context: Context) -> list[str]:
    """Returns loops that copy a row of the table for each element."""
    values = context.parameters["table"]
    x, y = context.inputs[0], context.store.y
    table = context.constant("table", values, "table", y.ctype)
    width = values.shape[1]
    operands = {
        **context.store.operands(),
        "x": Operand(y.in_order((*x.strides, 0))),
        "column": Operand(y.in_order((*(0,) * len(x.shape), 1))),
    }

    def body(at: dict[str, str]) -> list[str]:
        row = f"{read('x', at['x'], x, 'int32_t')} * {width}"
        return [context.store.line(f"{table}[{total(row, at['column'])}]", y.ctype, at)]

    return scoped(nest(y.in_order(y.shape), operands, body))


def _along(count: int, lines: list[str]) -> list[str]:
    """Returns a loop along a row."""
    return [f"for (int t = 0; t < {count}; t++) {{", *indent(lines), "}"]


def _rows(
    context: Context,
    body: Callable[[dict[str, str]], list[str]],
    extra: dict[str, tuple[int, ...]] | None = None,
) -> list[str]:
    """Returns loops over all rows; inside a row, `t` is the position along it.

    Args:
        context: the step.
        body: returns the lines of a row from the offset of each operand.
        extra: further operands, as strides by name.
    """
    y = context.store.y
    rank = len(y.shape)
    strides = {
        name: dict(zip(y.order, operand.strides, strict=True))
        for name, operand in context.store.operands().items()
    }
    for name, x in zip(context.input_names, context.inputs, strict=True):
        strides[name] = dict(enumerate(broadcast(x, rank)))
    for name, found in (extra or {}).items():
        strides[name] = dict(enumerate(found))
    steps = {name: by_axis.pop(rank - 1) for name, by_axis in strides.items()}
    operands = {
        name: Operand(y.in_order(tuple(by_axis.get(axis, 0) for axis in range(rank))))
        for name, by_axis in strides.items()
    }
    sizes = y.in_order((*y.shape[:-1], 1))

    def row(at: dict[str, str]) -> list[str]:
        along = {0: "0", 1: "t"}
        offsets = {
            name: total(at[name], along.get(step, f"t * {step}")) for name, step in steps.items()
        }
        return body(offsets)

    return scoped(nest(sizes, operands, row))


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the strides of a constant array; 0 along an axis of one element."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(range(len(shape))):
        strides[axis] = step if shape[axis] > 1 else 0
        step *= shape[axis]
    return tuple(strides)


def _root_kernels(context: Context) -> None:
    """Adds the functions that every norm uses."""
    context.kernels.setdefault(
        "root_power",
        [
            f"/* Returns the power of four that scales a positive number to {SQUARE_BITS - 1} or "
            f"{SQUARE_BITS} bits. */",
            "static inline int root_power(uint64_t value)",
            "{",
            "    int bits = 0;",
            "    for (; value != 0; value >>= 1) {",
            "        bits++;",
            "    }",
            f"    return bits > {SQUARE_BITS} ? -((bits - {SQUARE_BITS - 1}) / 2) : "
            f"({SQUARE_BITS} - bits) / 2;",
            "}",
        ],
    )
    context.kernels.setdefault(
        "inverse_root",
        [
            f"/* 2^{INVERSE_BITS} / isqrt(value * 4^power), both rounded down; the root is found",
            " * bit by bit. */",
            "static inline int64_t inverse_root(uint64_t value, int power)",
            "{",
            "    uint64_t left = power >= 0 ? value << (2 * power) : value >> (-2 * power);",
            "    uint64_t root = 0;",
            f"    for (uint64_t bit = UINT64_C(1) << {SQUARE_BITS - 2}; bit != 0; bit >>= 2) {{",
            "        if (left >= root + bit) {",
            "            left -= root + bit;",
            "            root = (root >> 1) + bit;",
            "        } else {",
            "            root >>= 1;",
            "        }",
            "    }",
            f"    return (int64_t)((UINT64_C(1) << {INVERSE_BITS}) / root);",
            "}",
        ],
    )
