"""Writes operators of single elements: sums, products, clamps and tables."""

from collections.abc import Callable

from photomask.chip.formats import Interval
from photomask.chip.forms.c.context import C, Context, broadcast, plus, read
from photomask.chip.forms.c.loops import Operand, nest, scoped
from photomask.chip.forms.c.text import arithmetic_type, c_type, literal
from photomask.chip.operators import Add, Clamp, Interpolate, Lookup, Multiply


@C.of(Add)
def add(operator: Add, context: Context) -> list[str]:
    """Returns loops that store a weighted sum of the inputs' elements."""
    acc = arithmetic_type(
        context.output.interval, *(x.interval for x in context.inputs), operator.bias,
        *operator.coefficients,
    )  # fmt: skip

    def value(elements: list[str]) -> str:
        terms = [
            f"{literal(coefficient, acc)} * {element}"
            for coefficient, element in zip(operator.coefficients, elements, strict=True)
        ]
        return " + ".join([*terms, literal(operator.bias, acc)])

    return _each(context, acc, value)


@C.of(Multiply)
def multiply(operator: Multiply, context: Context) -> list[str]:
    """Returns loops that store the product of two elements without their zero points."""
    factors = [
        x.interval.shifted(-z) for x, z in zip(context.inputs, operator.zero_points, strict=True)
    ]
    intervals = [x.interval for x in context.inputs]
    acc = arithmetic_type(context.output.interval, *factors, *intervals, *operator.zero_points)

    def value(elements: list[str]) -> str:
        return " * ".join(
            f"({element} - {literal(z, acc)})" if z else element
            for element, z in zip(elements, operator.zero_points, strict=True)
        )

    return _each(context, acc, value)


@C.of(Clamp)
def clamp(operator: Clamp, context: Context) -> list[str]:
    """Returns loops that clamp each element by two comparisons."""
    x, y = context.inputs[0], context.store.y
    acc = arithmetic_type(x.interval, operator.low, operator.high)
    low, high = literal(operator.low, acc), literal(operator.high, acc)
    operands = {**context.store.operands(), "x": Operand(y.in_order(x.strides))}

    def body(at: dict[str, str]) -> list[str]:
        clamped = f"v < {low} ? {low} : v > {high} ? {high} : v"
        return [
            f"const {acc} v = {read('x', at['x'], x, acc)};",
            context.store.line(clamped, acc, at),
        ]

    return scoped(nest(y.in_order(y.shape), operands, body))


@C.of(Lookup)
def lookup(operator: Lookup, context: Context) -> list[str]:
    """Returns loops that read the table once for each element."""
    values = context.parameters["table"]
    x = context.inputs[0].interval
    acc = arithmetic_type(x, operator.first, x.shifted(-operator.first))
    table_type = c_type(Interval(int(values.min()), int(values.max())))
    table = context.constant("table", values, "table", table_type)

    def value(elements: list[str]) -> str:
        return f"{table}[{plus(elements[0], -operator.first, literal(-operator.first, acc))}]"

    return _each(context, acc, value, table_type)


@C.of(Interpolate)
def interpolate(operator: Interpolate, context: Context) -> list[str]:
    """Returns loops that read two adjacent entries and interpolate between them."""
    values = context.parameters["table"]
    x, y = context.inputs[0], context.store.y
    places = x.interval.shifted(-operator.first)
    index = arithmetic_type(x.interval, operator.first, places)
    acc = arithmetic_type(context.output.interval)
    table_type = c_type(Interval(int(values.min()), int(values.max())))
    table = context.constant("table", values, "table", table_type)
    unit = 1 << operator.step_bits
    operands = {**context.store.operands(), "x": Operand(y.in_order(x.strides))}

    def body(at: dict[str, str]) -> list[str]:
        element = read("x", at["x"], x, index)
        position = plus(element, -operator.first, literal(-operator.first, index))
        line = f"start * {literal(unit, acc)} + (end - start) * ({acc})(position & {unit - 1})"
        return [
            f"const {index} position = {position};",
            f"const {acc} start = {table}[position >> {operator.step_bits}];",
            f"const {acc} end = {table}[(position >> {operator.step_bits}) + 1];",
            context.store.line(line, acc, at),
        ]

    return scoped(nest(y.in_order(y.shape), operands, body))


def _each(
    context: Context, acc: str, value: Callable[[list[str]], str], result: str | None = None
) -> list[str]:
    """Returns loops that store an expression of the inputs' elements.

    Args:
        context: the step.
        acc: the C type of the arithmetic. The elements are cast to it.
        value: a function from the elements to the result, as C expressions.
        result: the C type of the result; `acc` if None.
    """
    y = context.store.y
    rank = len(y.shape)
    operands = context.store.operands()
    for name, x in zip(context.input_names, context.inputs, strict=True):
        operands[name] = Operand(y.in_order(broadcast(x, rank)))

    def body(at: dict[str, str]) -> list[str]:
        elements = [
            read(name, at[name], x, acc)
            for name, x in zip(context.input_names, context.inputs, strict=True)
        ]
        return [context.store.line(value(elements), result or acc, at)]

    return nest(y.in_order(y.shape), operands, body)
