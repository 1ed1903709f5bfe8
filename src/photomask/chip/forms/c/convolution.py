"""Writes convolutions: matrix products of copied operands, or channel by channel if depthwise."""

import math

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.c.context import C, Context, read
from photomask.chip.forms.c.loops import Operand, nest, total
from photomask.chip.forms.c.plane import Plane
from photomask.chip.forms.c.products import GROUP, products_call
from photomask.chip.forms.c.sparse import Places, sparse_products
from photomask.chip.forms.c.tensors import Tensor
from photomask.chip.forms.c.text import affine, arithmetic_type, c_type, indent, literal
from photomask.chip.operators import Convolution
from photomask.chip.operators.weights import effective_weight


@C.of(Convolution)
def convolution(operator: Convolution, context: Context) -> list[str]:
    """Returns the body of a convolution."""
    weight = effective_weight(context.parameters)
    plane = Plane.of(operator, weight, context.inputs[0], context.store.y)
    if operator.groups > 1 and weight.shape[1] == 1:
        return _depthwise(context, plane, weight)
    sparse = _sparse(context, plane, weight)
    return _dense(context, plane, weight) if sparse is None else sparse


def _sparse(context: Context, plane: Plane, weight: np.ndarray) -> list[str] | None:
    """Returns a body that reads only the weights that are not zero, or None if dense is faster.

    It is slower for kernels of one position, because every operand that is copied to the planes is
    then used only once for each output.
    """
    if math.prod(plane.kernel) == 1:
        return None
    x, y = context.inputs[0], context.store.y
    places = Places(_four(x.strides), _four(y.strides), x.shape[0], channel_axis=1)
    flat = weight.reshape(*weight.shape[:2], *plane.kernel)
    return sparse_products(context, plane, flat, places, _padded(context, plane))


def _four(strides: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Returns the strides of batch, channel, row and column."""
    batch, channel, *spatial = strides
    return (batch, channel, *((0, *spatial)[-2:]))  # type: ignore[return-value]


def _padded(context: Context, plane: Plane) -> Interval:
    """Returns the interval of the operands: of the input and of the padding code."""
    return Interval.hull(context.inputs[0].interval, plane.padding_value)


def _spatial(tensor: Tensor) -> tuple[int, int]:
    """Returns the strides of rows and columns."""
    strides = tensor.strides
    return (strides[2], strides[3]) if len(strides) == 4 else (0, strides[2])


def _dense(context: Context, plane: Plane, weight: np.ndarray) -> list[str]:
    """Returns a body that copies the operands of two positions side by side, then multiplies."""
    x, groups = context.inputs[0], plane.groups
    rank = len(x.shape)
    flat = weight.transpose(0, *range(2, rank), 1).reshape(weight.shape[0], -1)
    positions = plane.out_height * plane.out_width
    pair = 2 if positions > 1 else 1
    group = GROUP if groups > 1 else None
    call, operand, acc = products_call(context, flat, _padded(context, plane), pair, groups)
    outputs, terms = weight.shape[0] // groups, flat.shape[1]
    _add_columns(context, plane, operand, weight.shape[1])
    source = [f"n * {x.strides[0]}"] if x.shape[0] > 1 else []
    source += [f"{GROUP} * {weight.shape[1] * x.strides[1]}"] if group and x.strides[1] else []
    start = " + ".join(["x", *source])
    work = [
        f"{context.name}_columns({start}, {row}, {column}, columns{f' + {terms}' if p else ''});"
        for p, (row, column) in enumerate(_positions(plane, pair))
    ]
    work += [f"{call};", *_stores(context, plane, pair, outputs, acc, group)]
    if group:
        work = [f"for (int {GROUP} = 0; {GROUP} < {groups}; {GROUP}++) {{", *indent(work), "}"]
    if pair == 2 and positions % 2:
        last = f"position + 1 < {positions} ? position + 1 : position"
        work = [f"const int next = {last};", *work]
    elif pair == 2:
        work = ["const int next = position + 1;", *work]
    if positions > 1:
        head = f"for (int position = 0; position < {positions}; position += 2) {{"
        work = [head, *indent(work), "}"]
    return _over_rows(x, work)


def _over_rows(x: Tensor, lines: list[str]) -> list[str]:
    """Returns the work in a loop over the batch axis, if one sample has several rows there."""
    if x.shape[0] == 1:
        return lines
    return [f"for (int n = 0; n < {x.shape[0]}; n++) {{", *indent(lines), "}"]


def _positions(plane: Plane, pair: int) -> list[tuple[str, str]]:
    if pair == 1:
        return [("0", "0")]
    width = plane.out_width
    if plane.out_height == 1:
        return [("0", "position"), ("0", "next")]
    return [(f"{name} / {width}", f"{name} % {width}") for name in ("position", "next")]


def _stores(
    context: Context, plane: Plane, pair: int, outputs: int, acc: str, group: str | None
) -> list[str]:
    """Returns the loops that store the sums of each position."""
    y = context.store.y
    lines = []
    for p, (row, column) in enumerate(_positions(plane, pair)):
        offsets = {}
        operands = {"sums": Operand((1,), p * outputs)}
        for name, operand in context.store.operands().items():
            by_axis = dict(zip(y.order, operand.strides, strict=True))
            offsets[name] = _place(by_axis, plane, row, column, outputs, group)
            operands[name] = Operand((by_axis[1],))

        def store(at: dict[str, str], offsets: dict[str, str] = offsets) -> list[str]:
            places = {name: total(offsets[name], at[name]) for name in offsets}
            return [context.store.line(f"sums[{at['sums']}]", acc, places)]

        lines += nest([outputs], operands, store, "o")
    return lines


def _place(
    by_axis: dict[int, int], plane: Plane, row: str, column: str, outputs: int, group: str | None
) -> str:
    """Returns the offset of a position, without the channel inside the group."""
    rank = len(by_axis)
    h, w = (by_axis[2], by_axis[3]) if rank == 4 else (0, by_axis[2])
    terms = [f"n * {by_axis[0]}"] if by_axis[0] else []
    flat, division, _ = row.partition(" / ")
    if division and h == w * plane.out_width:
        terms += [f"{flat} * {w}"] if w else []
    else:
        terms += [f"{row} * {h}"] if row != "0" and h else []
        terms += (
            [f"{column} * {w}" if " " not in column else f"({column}) * {w}"]
            if (column != "0" and w)
            else []
        )
    if group and by_axis[1]:
        terms.append(f"{group} * {outputs * by_axis[1]}")
    return total(*terms)


def _add_columns(context: Context, plane: Plane, operand: str, channels: int) -> None:
    """Adds the function that copies the operands of one output position."""
    x = context.inputs[0]
    h_stride, w_stride = _spatial(x)
    kernel, outside = plane.kernel, plane.outside()
    c_stride = x.strides[1]
    at = affine(("h", h_stride), ("w", w_stride), ("c", c_stride))
    every = f"for (int c = 0; c < {channels}; c++) {{"
    copy = [every, f"    columns[c] = {read('x', at, x, operand)};", "}"]
    if outside:
        padding = literal(plane.padding_value, operand)
        copy = [
            f"if ({outside}) {{",
            *indent([every, f"    columns[c] = {padding};", "}"]),
            "} else {",
            *indent(copy),
            "}",
        ]
    inner = [
        f"const int w = {plane.column()};",
        *([] if w_stride or "w " in outside else ["(void)w;"]),
        *copy,
        f"columns += {channels};",
    ]
    body = [f"for (int j = 0; j < {kernel[1]}; j++) {{", *indent(inner), "}"]
    row = f"const int h = {plane.row()};"
    together = w_stride == channels and c_stride == (1 if channels > 1 else 0)
    if together and kernel[1] > 1 and plane.dilation[1] == 1:
        body = [*_whole_row(x, plane, operand, channels), *body]
    if not (h_stride or "h " in outside):
        body = ["(void)h;", *body]
    lines = [f"for (int i = 0; i < {kernel[0]}; i++) {{", *indent([row, *body]), "}"]
    context.helpers += [
        f"/* Copies the operands of one output position of {context.name} as [kernel, channel]. */",
        f"static void {context.name}_columns(",
        f"    const {x.ctype} *restrict x, int row, int column, {operand} *restrict columns)",
        "{",
        *indent(lines),
        "}",
        "",
    ]


def _whole_row(x: Tensor, plane: Plane, operand: str, channels: int) -> list[str]:
    """Returns lines that copy a whole row of the kernel at once if none of it is padding."""
    count, first = plane.kernel[1] * channels, plane.before[1]
    h_stride, w_stride = _spatial(x)
    start = affine(("column", plane.stride[1]), constant=-first)
    tests = []
    outside = plane.outside()
    for test in outside.split(" || ") if outside else []:
        name, relation, size = test.split(" ")
        if name == "h":
            tests.append(f"h {'>=' if relation == '<' else '<'} {size}")
        elif relation == "<":
            tests.append("left >= 0")
        else:
            tests.append(f"left + {plane.kernel[1]} <= {size}")
    at = affine(("h", h_stride), ("left", w_stride), ("c", 1))
    copy = [
        f"for (int c = 0; c < {count}; c++) {{",
        f"    columns[c] = {read('x', at, x, operand)};",
        "}",
        f"columns += {count};",
        "continue;",
    ]
    return [
        f"const int left = {start};",
        f"if ({' && '.join(tests) or '1'}) {{",
        *indent(copy),
        "}",
    ]


def _depthwise(context: Context, plane: Plane, weight: np.ndarray) -> list[str]:
    """Returns a body that adds one kernel tap after the other to the sums of all channels."""
    x, y = context.inputs[0], context.store.y
    outputs = weight.shape[0]
    low, high = int(weight.min()), int(weight.max())
    acc = arithmetic_type(context.output.interval, _padded(context, plane), low, high)
    kind = c_type(Interval(min(low, -1), high))
    w = context.constant("weight", weight.reshape(outputs, -1).T, "weights [tap, channel]", kind)
    b = context.constant("bias", context.parameters["bias"], "biases", acc)
    context.scratch["sums"] = (acc, outputs)
    tap = [
        f"const {kind} *restrict taps = {w} + (i * {plane.kernel[1]} + j) * {outputs};",
        *_tap(context, plane, acc, outputs),
    ]
    offsets, operands = {}, {"sums": Operand((1,))}
    for name, operand in context.store.operands().items():
        by_axis = dict(zip(y.order, operand.strides, strict=True))
        offsets[name] = _place(by_axis, plane, "row", "column", outputs, None)
        operands[name] = Operand((by_axis[1],))

    def store(at: dict[str, str]) -> list[str]:
        places = {name: total(offsets[name], at[name]) for name in offsets}
        return [context.store.line(f"sums[{at['sums']}]", acc, places)]

    lines = [
        f"for (int row = 0; row < {plane.out_height}; row++) {{",
        f"    for (int column = 0; column < {plane.out_width}; column++) {{",
        f"        for (int c = 0; c < {outputs}; c++) {{",
        f"            sums[c] = {b}[c];",
        "        }",
        f"        for (int i = 0; i < {plane.kernel[0]}; i++) {{",
        f"            for (int j = 0; j < {plane.kernel[1]}; j++) {{",
        *indent(tap, 4),
        "            }",
        "        }",
        *indent(nest([outputs], operands, store, "c"), 2),
        "    }",
        "}",
    ]
    return _over_rows(x, lines)


def _tap(context: Context, plane: Plane, acc: str, outputs: int) -> list[str]:
    """Returns lines that add one position of the kernel to the sums."""
    x, outside = context.inputs[0], plane.outside()
    h_stride, w_stride = _spatial(x)
    multiple = outputs // plane.groups
    channel = "c" if multiple == 1 else f"(c / {multiple})"
    batch = x.strides[0] if x.shape[0] > 1 else 0
    at = affine(("n", batch), ("h", h_stride), ("w", w_stride), (channel, x.strides[1]))
    every = f"for (int c = 0; c < {outputs}; c++) {{"
    add = [every, f"    sums[c] += {read('x', at, x, acc)} * taps[c];", "}"]
    if outside:
        padding = plane.padding_value
        other = [every, f"    sums[c] += {literal(padding, acc)} * taps[c];", "}"]
        add = [f"if (!({outside})) {{", *indent(add), "}"]
        if padding:
            add = [*add[:-1], "} else {", *indent(other), "}"]
    return [
        f"const int h = {plane.row()};",
        f"const int w = {plane.column()};",
        *([] if h_stride or "h " in outside else ["(void)h;"]),
        *([] if w_stride or "w " in outside else ["(void)w;"]),
        *add,
    ]
