"""Sums and extremes over windows and axes, and products of two activations."""

from photomask.chip.c_source.c_text import arithmetic_type, indent, literal
from photomask.chip.c_source.emitters.site import Site, broadcast, read
from photomask.chip.c_source.loops import Operand, nest, scoped, total
from photomask.chip.operators import AveragePool, Matmul, MaxPool, Sum

NAMES = ("h", "w")


def sum_(site: Site) -> list[str]:
    """One sum after the other."""
    operator: Sum = site.operator
    x, y = site.inputs[0], site.store.y
    rank = len(x.shape)
    kept = [axis for axis in range(rank) if axis not in operator.axes or operator.keep_axes]
    centred = x.interval.shifted(-operator.zero_point)
    acc = arithmetic_type(site.output.interval, x.interval, centred, operator.zero_point)
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
            site.store.line("sum", acc, at),
        ]

    operands = {**site.store.operands(), "x": Operand(y.in_order(outer))}
    return scoped(nest(y.in_order(y.shape), operands, body))


def matmul(site: Site) -> list[str]:
    """Row times column."""
    operator: Matmul = site.operator
    a, b = site.inputs
    y = site.store.y
    rank = len(y.shape)
    factors = [
        x.interval.shifted(-z) for x, z in zip(site.inputs, operator.zero_points, strict=True)
    ]
    acc = arithmetic_type(
        site.output.interval, *factors, a.interval, b.interval, *operator.zero_points
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
            site.store.line("sum", acc, at),
        ]

    operands = {
        **site.store.operands(),
        "a": Operand(y.in_order(tuple(a_strides))),
        "b": Operand(y.in_order(tuple(b_strides))),
    }
    return scoped(nest(y.in_order(y.shape), operands, body))


def average_pool(site: Site) -> list[str]:
    """Sums over windows, cut to what lies in the input."""
    operator: AveragePool = site.operator
    x = site.inputs[0]
    centred = x.interval.shifted(-operator.zero_point)
    acc = arithmetic_type(site.output.interval, x.interval, centred, operator.zero_point)
    bounds = []
    for axis, size in enumerate(x.shape[2:]):
        name, count = NAMES[axis], operator.output_size[axis]
        if operator.adaptive:
            low, high = (
                f"{name} * {size} / {count}",
                f"(({name} + 1) * {size} + {count - 1}) / {count}",
            )
            bounds += _bounds(name, low, high, 0, size, cut=False)
            continue
        first = _scaled(name, operator.stride[axis], -operator.padding[axis])
        last = _scaled(name, operator.stride[axis], operator.kernel[axis] - operator.padding[axis])
        bounds += _bounds(name, first, last, 0, size)
    zero = operator.zero_point

    def step(element: str) -> list[str]:
        return [f"sum += {element}{f' - {literal(zero, acc)}' if zero else ''};"]

    return _windows(site, acc, "0", bounds, (1,) * len(x.shape[2:]), step)


def max_pool(site: Site) -> list[str]:
    """The largest element of each window."""
    operator: MaxPool = site.operator
    x = site.inputs[0]
    acc = arithmetic_type(x.interval)
    bounds = []
    for axis, size in enumerate(x.shape[2:]):
        name, dilation = NAMES[axis], operator.dilation[axis]
        before, span = operator.padding[axis], (operator.kernel[axis] - 1) * dilation + 1
        first = _scaled(name, operator.stride[axis], -before)
        last = _scaled(name, operator.stride[axis], span - before)
        # The first element inside keeps its distance from the others.
        bounds += _bounds(name, first, last, before if dilation > 1 else 0, size, dilation)
    lowest = literal(x.interval.low, acc)

    def step(element: str) -> list[str]:
        return [f"if ({element} > sum) {{", f"    sum = {element};", "}"]

    return _windows(site, acc, lowest, bounds, operator.dilation, step)


def _scaled(name: str, stride: int, offset: int) -> str:
    text = name if stride == 1 else f"{name} * {stride}"
    if offset:
        text += f" {'+' if offset > 0 else '-'} {abs(offset)}"
    return text


def _bounds(
    name: str, first: str, last: str, before: int, size: int, dilation: int = 1, cut: bool = True
) -> list[str]:
    """Returns declarations of a window's first element and one past its last.

    Args:
        name: of the output's loop.
        first: the first element, padding included.
        last: one past the last.
        before: the most that a window starts before the input where elements are not adjacent.
        size: of the input.
        dilation: between elements.
        cut: whether the window may reach outside.
    """
    if not cut:
        return [f"const int {name}_first = {first};", f"const int {name}_last = {last};"]
    begin = "0"
    if dilation > 1 and before:
        # -first rounded up to a multiple of the distance, added to first.
        begin = f"({first}) + (-({first}) + {dilation - 1}) / {dilation} * {dilation}"
    return [
        f"const int {name}_first = {first} < 0 ? {begin} : {first};",
        f"const int {name}_last = {last} > {size} ? {size} : {last};",
    ]


def _windows(
    site: Site, acc: str, start: str, bounds: list[str], steps: tuple[int, ...], step
) -> list[str]:
    """Returns loops over rows and samples, positions and channels around loops over a window."""
    x, y = site.inputs[0], site.store.y
    spatial = len(x.shape) - 2
    terms = {}
    sizes = {"n": y.shape[0], "h": y.shape[2], "c": y.shape[1]}
    if spatial == 2:
        sizes = {"n": y.shape[0], "h": y.shape[2], "w": y.shape[3], "c": y.shape[1]}
    own = {"n": 0, "c": 1, "h": 2, "w": 3}
    for operand, whole in site.store.operands().items():
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
    lines = [f"{acc} sum = {start};", *lines, site.store.line("sum", acc, at)]
    for name in reversed(list(sizes)):
        own_bounds = [line for line in bounds if line.startswith(f"const int {name}_")]
        head = f"for (int {name} = 0; {name} < {sizes[name]}; {name}++) {{"
        lines = [head, *indent([*own_bounds, *lines]), "}"]
    return lines


def _term(name: str, stride: int) -> str:
    return "0" if stride == 0 else name if stride == 1 else f"{name} * {stride}"
