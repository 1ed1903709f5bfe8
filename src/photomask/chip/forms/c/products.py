"""Sums of products with constant weights: the shared inner loops, and linear."""

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.c.context import Site, read
from photomask.chip.forms.c.loops import Operand, nest, total
from photomask.chip.forms.c.text import arithmetic_type, c_type, indent
from photomask.chip.operators.weights import effective_weight

INT16 = Interval(-(1 << 15), (1 << 15) - 1)
BLOCK = 4
"""Outputs whose sums are in registers together."""


def linear(site: Site) -> list[str]:
    """Row after row: copied to consecutive operands, then multiplied."""
    x, y = site.inputs[0], site.store.y
    weight = effective_weight(site.parameters)
    outputs, terms = weight.shape
    last = len(y.shape) - 1
    call, operand, acc = products_call(site, weight, x.interval, 1)

    def body(at: dict[str, str]) -> list[str]:
        def copy(inner: dict[str, str]) -> list[str]:
            value = read("x", total(at["x"], inner["x"]), x, operand)
            return [f"columns[{inner['columns']}] = {value};"]

        def store(inner: dict[str, str]) -> list[str]:
            offsets = {name: total(at[name], inner[name]) for name in inner if name in at}
            return [site.store.line(f"sums[{inner['sums']}]", acc, offsets)]

        columns = {"x": Operand((x.strides[last],)), "columns": Operand((1,))}
        results = {
            name: Operand((whole.strides[y.order.index(last)],))
            for name, whole in site.store.operands().items()
        }
        results["sums"] = Operand((1,))
        return [
            *nest([terms], columns, copy, "t"),
            f"{call};",
            *nest([outputs], results, store, "o"),
        ]

    rows = y.in_order(tuple(1 if axis == last else n for axis, n in enumerate(y.shape)))
    return nest(rows, {**site.store.operands(), "x": Operand(y.in_order(x.strides))}, body)


def products_call(
    site: Site, weight: np.ndarray, x: Interval, columns: int, group: str | None = None
) -> tuple[str, str, str]:
    """Adds weights, biases, working memory and the shared inner loops of a step.

    Args:
        site: the step.
        weight: [outputs, terms], all groups.
        x: what the operands hold.
        columns: 1 or 2 at a time.
        group: the variable that counts groups; None for one.

    Returns:
        The call, and the C types of the operands and of the sums.
    """
    outputs, terms = weight.shape
    low, high = int(weight.min()), int(weight.max())
    acc = arithmetic_type(site.output.interval, x, low, high)
    operand = "int16_t" if acc == "int32_t" and x.within(INT16) else acc
    kind = c_type(Interval(min(low, -1), high))
    w = site.constant("weight", weight, "weights [output, term]", kind)
    b = site.constant("bias", site.parameters["bias"], "biases", acc)
    site.scratch["columns"] = (operand, columns * terms)
    site.scratch["sums"] = (acc, columns * outputs)
    name = _kernel(site, operand, kind, acc, columns)
    if group is None:
        return f"{name}(columns, {w}, {b}, {terms}, {outputs}, sums)", operand, acc
    groups = site.operator.groups
    count = outputs // groups
    site.scratch["sums"] = (acc, columns * count)
    w, b = f"{w} + {group} * {count * terms}", f"{b} + {group} * {count}"
    return f"{name}(columns, {w}, {b}, {terms}, {count}, sums)", operand, acc


def _kernel(site: Site, operand: str, weight: str, acc: str, columns: int) -> str:
    """Adds the inner loops for these types to the shared functions; returns their name."""
    short = "_".join(t.removesuffix("_t").replace("int", "i") for t in (operand, weight, acc))
    name = f"products_{columns}_{short}"
    many = f"{columns} columns at once" if columns > 1 else "one column"
    site.kernels.setdefault(
        name,
        [
            f"/* sums[column, o] = biases[o] + sum(columns[column, t] * weights[o, t]): {many},",
            f" * {BLOCK} outputs at once. Sums fit their type in any order, as proven. */",
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
    """Returns the sums of some columns and outputs, each sum in a variable of its own."""
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
