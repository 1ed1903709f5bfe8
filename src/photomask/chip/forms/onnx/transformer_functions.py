"""The functions of the integer form for softmax and norms."""

from functools import cache
from typing import TYPE_CHECKING

from photomask.chip.forms.onnx.functions import DOMAIN, FunctionBody
from photomask.chip.operators.normalize import INVERSE_BITS, SQUARE_BITS

if TYPE_CHECKING:
    import onnx

ROOT_STEPS = 6
"""The Newton steps from `2**24` to the root of a number of 47 or 48 bits; five would be enough."""


@cache
def softmax(masks: int) -> "onnx.FunctionProto":
    """Returns the softmax of integers with 0, 1 or 2 masks, which hide where they are 0."""
    body = FunctionBody()
    x = "x"
    mask = ""
    names = [f"mask_{number}" for number in range(masks)]
    if masks:
        visible = [body.cast(f"visible_{name}", name, body.kinds.BOOL) for name in names]
        mask = visible[0] if masks == 1 else body.add("visible", "And", visible)
        body.cast("lowest", body.number("low", "@low"), body.kinds.INT32)
        x = body.add("seen", "Where", [mask, "x", "lowest"])
    body.add("last_axis", "Constant", [], value_ints=[-1])
    body.add("peak", "ReduceMax", [x, "last_axis"])
    body.add("below", "Sub", ["peak", "x"])
    body.number("zero", 0)
    body.cast("zero_int32", "zero", body.kinds.INT32)
    body.cast("last_int32", body.number("last", "@last"), body.kinds.INT32)
    body.add("distance", "Clip", ["below", "zero_int32", "last_int32"])
    exponent = body.add("exponent", "Gather", ["table", "distance"], axis=0)
    if masks:
        exponent = body.add("taken", "Where", [mask, "exponent", "zero"])
    body.add("total", "ReduceSum", [exponent, "last_axis"])
    body.add("is_some", "Greater", ["total", "zero"])
    body.add("divisor", "Where", ["is_some", "total", body.number("one", 1)])
    body.add("reciprocal", "Div", [body.number("whole", "@whole"), "divisor"])
    body.add("product", "Mul", [exponent, "reciprocal"])
    body.add("raised", "Add", ["product", body.number("half", "@half")])
    body.add("y", "ShiftRight", ["raised", body.number("amount", "@shift")], DOMAIN)
    return body.function(
        ("Softmax", "MaskedSoftmax", "TwiceMaskedSoftmax")[masks],
        ["x", "table", *names],
        ["last", "whole", "half", "shift", *(["low"] if masks else [])],
        "round(e * (whole // sum(e)) / 2**shift) with e = table[min(max(x) - x, last)].",
    )


@cache
def inverse_root() -> "onnx.FunctionProto":
    """Returns `InverseRoot`: `2**47 // isqrt(v')`, and the power of four in `v' = v * 4**power`."""
    body = FunctionBody()
    unsigned = body.kinds.UINT64
    thresholds = [1 << (2 * bits) for bits in range(1, 31)]
    body.add("powers_of_four", "Constant", [], value_ints=thresholds)
    body.add("reaches", "GreaterOrEqual", ["v", "powers_of_four"])
    body.cast("reached", "reaches", body.kinds.INT64)
    body.add("last_axis", "Constant", [], value_ints=[-1])
    body.add("count", "ReduceSum", ["reached", "last_axis"])
    body.add("power", "Sub", [body.number("most", SQUARE_BITS // 2 - 1), "count"])
    body.number("zero", 0)
    body.add("is_left", "Greater", ["power", "zero"])
    body.add("minus_power", "Neg", ["power"])
    body.add("left", "Where", ["is_left", "power", "zero"])
    body.add("right", "Where", ["is_left", "zero", "minus_power"])
    body.add("left_bits", "Add", ["left", "left"])
    body.add("right_bits", "Add", ["right", "right"])
    body.cast("bits", "v", unsigned)
    body.cast("left_amount", "left_bits", unsigned)
    body.cast("right_amount", "right_bits", unsigned)
    body.add("raised", "BitShift", ["bits", "left_amount"], direction="LEFT")
    body.add("lowered", "BitShift", ["raised", "right_amount"], direction="RIGHT")
    body.cast("scaled", "lowered", body.kinds.INT64)
    body.number("two", 2)
    root = body.number("root_0", 1 << (SQUARE_BITS // 2))
    for step in range(1, ROOT_STEPS + 1):
        body.add(f"quotient_{step}", "Div", ["scaled", root])
        body.add(f"sum_{step}", "Add", [root, f"quotient_{step}"])
        root = body.add(f"root_{step}", "Div", [f"sum_{step}", "two"])
    body.add("square", "Mul", [root, root])
    body.add("is_above", "Greater", ["square", "scaled"])
    body.cast("excess", "is_above", body.kinds.INT64)
    body.add("root", "Sub", [root, "excess"])
    body.add("y", "Div", [body.number("whole", 1 << INVERSE_BITS), "root"])
    function = body.function("InverseRoot", ["v"], [], "2**47 // isqrt(v * 4**power), and power.")
    function.output.append("power")
    return function


@cache
def normalize(centred: bool) -> "onnx.FunctionProto":
    """Returns `LayerNorm` or `RootMeanSquareNorm` of integers, without gain and bias."""
    body = FunctionBody()
    distance = "x"
    if centred:
        body.add("sum", "MatMul", ["x", "ones"])
        body.add("scaled_x", "Mul", ["x", body.number("count", "@terms")])
        distance = body.add("distance", "Sub", ["scaled_x", "sum"])
    body.add("square", "Mul", [distance, distance])
    body.add("squares", "MatMul", ["square", "ones"])
    body.add("v", "Add", ["squares", body.number("added", "@epsilon")])
    node = body.onnx.helper.make_node("InverseRoot", ["v"], ["inverse", "power"], domain=DOMAIN)
    body.nodes.append(node)
    body.add("product", "Mul", [distance, "inverse"])
    body.add("shift", "Sub", [body.number("bits", "@shift"), "power"])
    body.add("half_shift", "Sub", ["shift", body.number("one", 1)])
    body.cast("half_amount", "half_shift", body.kinds.UINT64)
    body.number("unit", 1, body.kinds.UINT64)
    body.add("half_bits", "BitShift", ["unit", "half_amount"], direction="LEFT")
    body.cast("half", "half_bits", body.kinds.INT64)
    body.add("raised", "Add", ["product", "half"])
    body.add("y", "ShiftRight", ["raised", "shift"], DOMAIN)
    return body.function(
        "LayerNorm" if centred else "RootMeanSquareNorm",
        ["x", "ones"],
        ["epsilon", "shift", *(["terms"] if centred else [])],
        "d / sqrt(sum(d * d) + epsilon) in units of 2**-f; d is the distance from the mean or "
        "from 0.",
    )
