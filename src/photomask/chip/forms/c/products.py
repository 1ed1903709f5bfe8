"""Writes products, with constant weights or of two activations, and their shared inner loops."""

import math

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.c.context import C, Context, broadcast, read
from photomask.chip.forms.c.loops import Operand, nest, scoped, total
from photomask.chip.forms.c.plane import Plane
from photomask.chip.forms.c.sparse import Places, sparse_products
from photomask.chip.forms.c.text import arithmetic_type, c_type, indent, literal
from photomask.chip.forms.c.zero_blocks import block_products_call
from photomask.chip.operators import Linear, Matmul
from photomask.chip.operators.weights import effective_weight

INT16 = Interval(-(1 << 15), (1 << 15) - 1)
BLOCK = 4
"""The number of outputs whose sums are in registers at the same time."""
GROUP = "g"
"""The variable that counts groups, if there are several."""


@C.of(Linear)
def linear(operator: Linear, context: Context) -> list[str]:
    """Returns loops that copy each row to adjacent operands, then multiply it by the weights."""
    x, y = context.inputs[0], context.store.y
    weight = effective_weight(context.parameters)
    outputs, terms = weight.shape
    last = len(y.shape) - 1
    sparse = _sparse_linear(context, weight)
    if sparse is not None:
        return sparse
    call, operand, acc = products_call(context, weight, x.interval, 1)

    def body(at: dict[str, str]) -> list[str]:
        def copy(inner: dict[str, str]) -> list[str]:
            value = read("x", total(at["x"], inner["x"]), x, operand)
            return [f"columns[{inner['columns']}] = {value};"]

        def store(inner: dict[str, str]) -> list[str]:
            offsets = {name: total(at[name], inner[name]) for name in inner if name in at}
            return [context.store.line(f"sums[{inner['sums']}]", acc, offsets)]

        columns = {"x": Operand((x.strides[last],)), "columns": Operand((1,))}
        results = {
            name: Operand((whole.strides[y.order.index(last)],))
            for name, whole in context.store.operands().items()
        }
        results["sums"] = Operand((1,))
        return [
            *nest([terms], columns, copy, "t"),
            f"{call};",
            *nest([outputs], results, store, "o"),
        ]

    rows = y.in_order(tuple(1 if axis == last else n for axis, n in enumerate(y.shape)))
    return nest(rows, {**context.store.operands(), "x": Operand(y.in_order(x.strides))}, body)


def _sparse_linear(context: Context, weight: np.ndarray) -> list[str] | None:
    """Returns a body that reads only the weights that are not zero, or None if dense is faster."""
    x, y = context.inputs[0], context.store.y
    if x.order != tuple(range(len(x.shape))) or y.order != tuple(range(len(y.shape))):
        return None
    rows = math.prod(x.shape[:-1])
    places = Places(
        x=(0, x.strides[-1], 0, x.shape[-1]),
        y=(0, y.strides[-1], 0, y.shape[-1]),
        batch=1,
        channel_axis=len(y.shape) - 1,
    )
    return sparse_products(
        context, Plane.of_rows(rows), weight[:, :, np.newaxis, np.newaxis], places, x.interval
    )


@C.of(Matmul)
def matmul(operator: Matmul, context: Context) -> list[str]:
    """Returns loops that multiply rows by columns."""
    a, b = context.inputs
    y = context.store.y
    rank = len(y.shape)
    factors = [
        x.interval.shifted(-z) for x, z in zip(context.inputs, operator.zero_points, strict=True)
    ]
    acc = arithmetic_type(
        context.output.interval, *factors, a.interval, b.interval, *operator.zero_points
    )
    a_strides, b_strides = list(broadcast(a, rank)), list(broadcast(b, rank))
    a_step, b_step = a_strides[-1], b_strides[-2]
    a_strides[-1] = b_strides[-2] = 0

    def body(at: dict[str, str]) -> list[str]:
        factor = []
        for name, x, step, zero in zip(
            "ab", (a, b), (a_step, b_step), operator.zero_points, strict=True
        ):
            along = [] if step == 0 else ["t" if step == 1 else f"t * {step}"]
            element = read(name, total(at[name], *along), x, acc)
            factor.append(f"({element} - {literal(zero, acc)})" if zero else element)
        return [
            f"{acc} sum = 0;",
            f"for (int t = 0; t < {operator.terms}; t++) {{",
            f"    sum += {' * '.join(factor)};",
            "}",
            context.store.line("sum", acc, at),
        ]

    operands = {
        **context.store.operands(),
        "a": Operand(y.in_order(tuple(a_strides))),
        "b": Operand(y.in_order(tuple(b_strides))),
    }
    return scoped(nest(y.in_order(y.shape), operands, body))


def products_call(
    context: Context, weight: np.ndarray, x: Interval, columns: int, groups: int = 1
) -> tuple[str, str, str]:
    """Adds the weights, biases, working memory and shared inner loops of a step.

    Args:
        context: the step.
        weight: [outputs, terms] of all groups.
        x: the interval of the operands.
        columns: how many columns are computed at once, 1 or 2.
        groups: the number of groups. Several groups are computed one after the other, with `GROUP`
            as the loop variable.

    Returns:
        The call, and the C types of the operands and of the sums.
    """
    outputs, terms = weight.shape
    low, high = int(weight.min()), int(weight.max())
    acc = arithmetic_type(context.output.interval, x, low, high)
    operand = "int16_t" if acc == "int32_t" and x.within(INT16) else acc
    kind = c_type(Interval(min(low, -1), high))
    b = context.constant("bias", context.parameters["bias"], "biases", acc)
    context.scratch["columns"] = (operand, columns * terms)
    count = outputs // groups
    context.scratch["sums"] = (acc, columns * count)
    if groups == 1:
        blocks = block_products_call(context, weight, columns, (operand, kind, acc), b)
        if blocks is not None:
            return blocks, operand, acc
    w = context.constant("weight", weight, "weights [output, term]", kind)
    name = _kernel(context, operand, kind, acc, columns)
    if groups > 1:
        w, b = f"{w} + {GROUP} * {count * terms}", f"{b} + {GROUP} * {count}"
    return f"{name}(columns, {w}, {b}, {terms}, {count}, sums)", operand, acc


def _kernel(context: Context, operand: str, weight: str, acc: str, columns: int) -> str:
    """Adds the inner loops for these types to the shared functions, and returns their name."""
    short = "_".join(t.removesuffix("_t").replace("int", "i") for t in (operand, weight, acc))
    name = f"products_{columns}_{short}"
    many = f"{columns} columns at once" if columns > 1 else "one column"
    context.kernels.setdefault(
        name,
        [
            f"/* sums[column, o] = biases[o] + sum(columns[column, t] * weights[o, t]): {many},",
            f" * {BLOCK} outputs at once. It is proven that sums in any order fit their type. */",
            f"static void {name}(",
            f"    const {operand} *restrict columns, const {weight} *restrict weights,",
            f"    const {acc} *restrict biases, int terms, int outputs, {acc} *restrict sums)",
            "{",
            f"    const int whole = outputs - outputs % {BLOCK};",
            f"    for (int o = 0; o < whole; o += {BLOCK}) {{",
            *indent(_block(operand, weight, acc, columns, BLOCK), 2),
            "    }",
            "    for (int o = whole; o < outputs; o++) {",
            *indent(_block(operand, weight, acc, columns, 1), 2),
            "    }",
            "}",
        ],
    )
    return name


def _block(operand: str, weight: str, acc: str, columns: int, outputs: int) -> list[str]:
    """Returns lines that compute the sums of some columns and outputs, each in its own variable."""
    rows = [f"const {weight} *restrict w0 = weights + o * terms;"]
    rows += [f"const {weight} *restrict w{j} = w{j - 1} + terms;" for j in range(1, outputs)]
    for j in range(outputs):
        at = f"o + {j}" if j else "o"
        sums = ", ".join(f"s{p}{j} = biases[{at}]" for p in range(columns))
        rows.append(f"{acc} {sums};")
    inner = []
    for p in range(columns):
        offset = "t" if p == 0 else "terms + t"
        inner.append(f"const {acc} x{p} = columns[{offset}];")
        inner += [f"s{p}{j} += x{p} * w{j}[t];" for j in range(outputs)]
    rows += ["for (int t = 0; t < terms; t++) {", *indent(inner), "}"]
    for p in range(columns):
        base = "" if p == 0 else "outputs + "
        rows += [f"sums[{base}o{f' + {j}' if j else ''}] = s{p}{j};" for j in range(outputs)]
    return rows
