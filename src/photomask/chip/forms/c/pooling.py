"""Writes sums, averages and maxima over windows and axes."""

from collections.abc import Callable

from photomask.chip.forms.c.context import C, Context, read
from photomask.chip.forms.c.loops import Operand, nest, scoped, total
from photomask.chip.forms.c.text import affine, arithmetic_type, indent, literal
from photomask.chip.operators import AveragePool, MaxPool, Sum

NAMES = ("h", "w")


@C.of(Sum)
def sum_(operator: Sum, context: Context) -> list[str]:
    """Returns loops that compute one sum after the other."""
    x, y = context.inputs[0], context.store.y
    rank = len(x.shape)
    kept = [axis for axis in range(rank) if axis not in operator.axes or operator.keep_axes]
    centred = x.interval.shifted(-operator.zero_point)
    acc = arithmetic_type(context.output.interval, x.interval, centred, operator.zero_point)
    outer = tuple(0 if axis in operator.axes else x.strides[axis] for axis in kept)
    summed = [axis for axis in x.order if axis in operator.axes]

    def body(at: dict[str, str]) -> list[str]:
        def inner(within: dict[str, str]) -> list[str]:
            element = read("x", total(at["x"], within["x"]), x, acc)
            zero = operator.zero_point
            return [f"sum += {element}{f' - {literal(zero, acc)}' if zero else ''};"]

        strides = tuple(x.strides[axis] for axis in summed)
        sizes = [x.shape[axis] for axis in summed]
        return [
            f"{acc} sum = 0;",
            *nest(sizes, {"x": Operand(strides)}, inner, "stuv"),
            context.store.line("sum", acc, at),
        ]

    operands = {**context.store.operands(), "x": Operand(y.in_order(outer))}
    return scoped(nest(y.in_order(y.shape), operands, body))


@C.of(AveragePool)
def average_pool(operator: AveragePool, context: Context) -> list[str]:
    """Returns loops that sum each window; a window ends where the input ends."""
    x = context.inputs[0]
    centred = x.interval.shifted(-operator.zero_point)
    acc = arithmetic_type(context.output.interval, x.interval, centred, operator.zero_point)
    bounds = []
    for axis, size in enumerate(x.shape[2:]):
        name, count = NAMES[axis], operator.output_size[axis]
        if operator.adaptive:
            last = f"(({name} + 1) * {size} + {count - 1}) / {count}"
            bounds.append(f"const int {name}_first = {name} * {size} / {count};")
            bounds.append(f"const int {name}_last = {last};")
        else:
            bounds += _bounds(operator, axis, size, operator.kernel[axis], 1)
    zero = operator.zero_point

    def step(element: str) -> list[str]:
        return [f"sum += {element}{f' - {literal(zero, acc)}' if zero else ''};"]

    return _windows(context, (acc, "sum", "0"), bounds, (1,) * len(x.shape[2:]), step)


@C.of(MaxPool)
def max_pool(operator: MaxPool, context: Context) -> list[str]:
    """Returns loops that find the largest element of each window."""
    x = context.inputs[0]
    acc = arithmetic_type(x.interval)
    bounds = []
    for axis, size in enumerate(x.shape[2:]):
        dilation = operator.dilation[axis]
        span = (operator.kernel[axis] - 1) * dilation + 1
        bounds += _bounds(operator, axis, size, span, dilation)

    def step(element: str) -> list[str]:
        return [f"if ({element} > largest) {{", f"    largest = {element};", "}"]

    lowest = literal(x.interval.low, acc)
    return _windows(context, (acc, "largest", lowest), bounds, operator.dilation, step)


def _bounds(
    operator: AveragePool | MaxPool, axis: int, size: int, span: int, dilation: int
) -> list[str]:
    """Returns C declarations of the first element of a window, and of the end behind its last.

    Args:
        operator: the pooling.
        axis: the spatial axis.
        size: the size of the input along the axis.
        span: the distance from the first element of a window to its last, both included.
        dilation: the distance between adjacent elements of a window.
    """
    name, stride = NAMES[axis], operator.stride[axis]
    before = operator.padding[axis]
    begin = affine((name, stride), constant=-before)
    end = affine((name, stride), constant=span - before)
    first, last = begin, end
    if before:
        # The first element inside the input must keep its distance from the others.
        inside = f"{begin} + ({before + dilation - 1} - {affine((name, stride))})"
        inside = f"{inside} / {dilation} * {dilation}" if dilation > 1 else "0"
        first = f"{begin} < 0 ? {inside} : {begin}"
    if (operator.output_size[axis] - 1) * stride + span - before > size:
        last = f"{end} > {size} ? {size} : {end}"
    return [f"const int {name}_first = {first};", f"const int {name}_last = {last};"]


def _windows(
    context: Context,
    result: tuple[str, str, str],
    bounds: list[str],
    steps: tuple[int, ...],
    step: Callable[[str], list[str]],
) -> list[str]:
    """Returns loops over positions and channels around loops over a window.

    Args:
        context: the pooling.
        result: the C type, the name and the initial value of a window's result.
        bounds: declarations of each window's first and last element, by the names of the loops.
        steps: the distance between adjacent elements of a window, by spatial axis.
        step: returns the lines that add an element to the result.
    """
    acc, variable, start = result
    x, y = context.inputs[0], context.store.y
    spatial = len(x.shape) - 2
    terms = {}
    sizes = {"n": y.shape[0], "h": y.shape[2], "c": y.shape[1]}
    if spatial == 2:
        sizes = {"n": y.shape[0], "h": y.shape[2], "w": y.shape[3], "c": y.shape[1]}
    own = {"n": 0, "c": 1, "h": 2, "w": 3}
    for operand, whole in context.store.operands().items():
        by_axis = dict(zip(y.order, whole.strides, strict=True))
        terms[operand] = [_term(name, by_axis[own[name]]) for name in sizes]
    inner = [_term("n", x.strides[0]), _term("c", x.strides[1])]
    inner += [_term(f"{NAMES[a]}_at", x.strides[2 + a]) for a in range(spatial)]
    element = read("x", total(*inner), x, acc)
    lines = step(element)
    for axis in reversed(range(spatial)):
        name = NAMES[axis]
        advance = f"{name}_at++" if steps[axis] == 1 else f"{name}_at += {steps[axis]}"
        head = f"for (int {name}_at = {name}_first; {name}_at < {name}_last; {advance}) {{"
        lines = [head, *indent(lines), "}"]
    at = {operand: total(*parts) for operand, parts in terms.items()}
    lines = [f"{acc} {variable} = {start};", *lines, context.store.line(variable, acc, at)]
    for name in reversed([name for name in sizes if sizes[name] > 1 or name in NAMES]):
        own_bounds = [line for line in bounds if line.startswith(f"const int {name}_")]
        head = f"for (int {name} = 0; {name} < {sizes[name]}; {name}++) {{"
        lines = [head, *indent([*own_bounds, *lines]), "}"]
    return scoped(lines)


def _term(name: str, stride: int) -> str:
    return "0" if stride == 0 else name if stride == 1 else f"{name} * {stride}"
