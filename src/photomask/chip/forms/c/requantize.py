"""Writes requantization, as an inline function in the narrowest arithmetic that is proven exact."""

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.c.context import C, Context, Rescale, plus
from photomask.chip.forms.c.loops import Operand, nest
from photomask.chip.forms.c.tensors import Tensor
from photomask.chip.forms.c.text import arithmetic_type, literal
from photomask.chip.operators import Requantize
from photomask.chip.target import Rounding

NUDGE = 1 << 30
ADDENDS = {
    Rounding.HALF_UP: ("to nearest, ties up", "half"),
    Rounding.HALF_EVEN: (
        "to nearest, ties to the even neighbour",
        "half - (half != 0) + (half != 0 && (floor_shift_{w}(value, shift) & 1) != 0)",
    ),
    Rounding.HALF_AWAY: (
        "to nearest, ties away from zero",
        "half - (half != 0 && value < 0)",
    ),
    Rounding.DOUBLE: (
        "half up, after a first rounding at bit 31 (TOSA double rounding)",
        "half + (shift > 31 ? (value >= 0 ? 1 << 30 : -(1 << 30)) : 0)",
    ),
}
"""For each rounding mode its description, and what is added before the low bits are dropped."""


@C.of(Requantize)
def requantize(operator: Requantize, context: Context) -> list[str]:
    """Returns loops for a requantization that is not merged into the step before it."""
    x, y = context.inputs[0], context.store.y
    operands = context.store.operands()
    operands["x"] = Operand(y.in_order(x.strides))
    sizes = y.in_order(y.shape)
    return nest(sizes, operands, lambda at: [context.store.line(f"x[{at['x']}]", x.ctype, at)])


def rescale_function(operator: Requantize, context: Context, parameter: str) -> Rescale:
    """Adds the inline function of a requantization to the helpers of `context`.

    Args:
        operator: the requantization.
        context: the context of the requantization's own step.
        parameter: the C type of the numbers that the function takes.
    """
    x = context.inputs[0]
    multiplier, shift = _with_one_shift(
        operator, x.interval, context.parameters["multiplier"], context.parameters["shift"]
    )
    product, scaled = _arithmetic(operator, x.interval, multiplier, shift)
    indexed = multiplier.size > 1 and not (_is_one(multiplier) and _is_one(shift))
    scaling = "multipliers"
    if multiplier is not context.parameters["multiplier"]:
        scaling = f"multipliers, times powers of two so that all shift by {int(shift.max())},"
    m = _factor(context, "multiplier", multiplier, scaling)
    s = _factor(context, "shift", shift, "shifts")
    centred = plus("x", operator.offset, literal(operator.offset, product))
    if operator.offset and parameter != product:
        centred = f"(({product})x + {literal(operator.offset, product)})"
    width = product[3:5]
    first = f"({product}){centred}" if not operator.offset and parameter != product else centred
    rounded = f"{rounding_kernel(context, operator.rounding, width)}({first} * {m}, {s})"
    if scaled != product:
        rounded = f"({scaled}){rounded}"
    zero_point = plus(rounded, operator.zero_point, literal(operator.zero_point, scaled))
    low, high = literal(operator.low, scaled), literal(operator.high, scaled)
    y = context.store.y.ctype
    context.helpers += [
        f"static inline {y} {context.name}({parameter} x{', int c' if indexed else ''})",
        "{",
        f"    const {scaled} y = {zero_point.removeprefix('(').removesuffix(')')};"
        if operator.zero_point
        else f"    const {scaled} y = {rounded};",
        f"    return ({y})(y < {low} ? {low} : y > {high} ? {high} : y);",
        "}",
        "",
    ]
    strides = _factor_strides(multiplier.shape, x) if indexed else None
    return Rescale(context.name, parameter, strides)


def _with_one_shift(
    operator: Requantize, x: Interval, multiplier: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gives all channels the largest shift, and scales their multipliers by powers of two.

    The quotient stays the same, and so does the ratio of the remainder to the divisor. Every
    rounding mode therefore gives the same result, except `DOUBLE`, which depends on the shift
    itself. The change is useful because compilers vectorize shifts by a constant. If products would
    become too large, the arguments are returned unchanged.
    """
    largest = int(shift.max())
    too_far = largest - int(shift.min()) > 30 or int(multiplier.max()) >= 1 << 31
    if operator.rounding is Rounding.DOUBLE or too_far:
        return multiplier, shift
    scaled = multiplier << (largest - shift)
    product = x.shifted(operator.offset).magnitude * int(scaled.max()) + (1 << largest)
    if int(scaled.max()) >= 1 << 31 or product >= 1 << 62:
        return multiplier, shift
    return (multiplier, shift) if _is_one(shift) else (scaled, np.full_like(shift, largest))


def _arithmetic(
    operator: Requantize, x: Interval, multiplier: np.ndarray, shift: np.ndarray
) -> tuple[str, str]:
    """Returns the C types in which the rounded product, and the shifted result, are exact."""
    centred = x.shifted(operator.offset)
    largest, results = 0, [operator.low, operator.high, operator.zero_point]
    pairs = np.unique(np.stack([multiplier.ravel(), shift.ravel()], axis=1), axis=0)
    for m, s in pairs.tolist():
        nudge = NUDGE if operator.rounding is Rounding.DOUBLE and s > 31 else 0
        product = centred.magnitude * m + (1 << s) + nudge
        largest = max(largest, product)
        results.append((product >> s) + 1 + abs(operator.zero_point))
    scaled = arithmetic_type(*results)
    products = (x, centred, operator.offset, largest, int(multiplier.max()))
    return arithmetic_type(*products, *results), scaled


def _is_one(values: np.ndarray) -> bool:
    return bool((values == values.flat[0]).all())


def _factor(context: Context, role: str, values: np.ndarray, note: str) -> str:
    """Returns the multiplier or the shift as a number, or as an element of an array."""
    if _is_one(values):
        return str(int(values.flat[0]))
    ctype = "int32_t" if role == "multiplier" and values.max() < 1 << 31 else None
    return f"{context.constant(role, values, note, ctype)}[c]"


def _factor_strides(shape: tuple[int, ...], x: Tensor) -> tuple[int, ...]:
    """Returns strides into the multipliers, by own axis of `x`."""
    padded = (1,) * (len(x.shape) - len(shape)) + shape
    strides, step = [0] * len(padded), 1
    for axis in reversed(range(len(padded))):
        strides[axis] = step if padded[axis] > 1 else 0
        step *= padded[axis]
    return tuple(strides)


def rounding_kernel(context: Context, rounding: Rounding, width: str) -> str:
    """Adds functions that shift and round `width` bits, and returns the name of the last."""
    shift_name = f"floor_shift_{width}"
    top = f"(UINT{width}_C(1) << {int(width) - 1})"
    context.kernels.setdefault(
        shift_name,
        [
            "/* floor(value / 2^shift). The sum with the top bit is not negative, so that no",
            " * negative number is shifted, and compilers vectorise it. */",
            f"static inline int{width}_t {shift_name}(int{width}_t value, int shift)",
            "{",
            f"    const uint{width}_t top = {top};",
            f"    return (int{width}_t)((((uint{width}_t)value + top) >> shift) - (top >> shift));",
            "}",
        ],
    )
    if rounding is Rounding.TRUNCATE:
        return shift_name
    name = f"round_{rounding.value}_{width}"
    note, addend = ADDENDS[rounding]
    addend = addend.format(w=width)
    addend = addend if addend == "half" else f"({addend})"
    context.kernels.setdefault(
        name,
        [
            f"/* value / 2^shift, rounded {note}. */",
            f"static inline int{width}_t {name}(int{width}_t value, int shift)",
            "{",
            f"    const int{width}_t half = (int{width}_t)((INT{width}_C(1) << shift) >> 1);",
            f"    return {shift_name}(value + {addend}, shift);",
            "}",
        ],
    )
    return name
