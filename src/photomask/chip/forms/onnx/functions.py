"""The functions of the integer form, where ai.onnx has no suitable operator.

Each function consists of standard operators, so a runtime that does not know it can inline it. On
int64, the functions use only sums, products, bit operations and comparisons. The reason is a fault
in ONNX Runtime 1.31: Min, Max, Clip and Sign of int64 compare only the low halves with their signs,
which is wrong for numbers beyond 32 bits.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from photomask.chip.forms.onnx_builder import onnx_package
from photomask.chip.target import Rounding

if TYPE_CHECKING:
    import onnx

DOMAIN = "photomask"
OPSET = 21

REQUANTIZE: dict[Rounding, str] = {
    Rounding.HALF_UP: "RequantizeHalfUp",
    Rounding.HALF_EVEN: "RequantizeHalfEven",
    Rounding.HALF_AWAY: "RequantizeHalfAway",
    Rounding.TRUNCATE: "RequantizeTruncate",
    Rounding.DOUBLE: "RequantizeDouble",
}
"""The name of the function that rescales with each rounding; the general variant ends in `Wide`."""

_DEFINITION = "clamp(round(x * multiplier / 2**shift) + zero_point, low, high)"


class FunctionBody:
    """Collects the nodes of one function; each value is named after what it holds."""

    def __init__(self) -> None:
        self.onnx = onnx_package()
        self.kinds = self.onnx.TensorProto
        self.nodes: list[onnx.NodeProto] = []

    def add(
        self, output: str, operator: str, inputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> str:
        """Adds a node; an attribute of the form `"@name"` is the function's attribute `name`."""
        references = {k: v for k, v in attributes.items() if isinstance(v, str) and v[:1] == "@"}
        fixed = {k: v for k, v in attributes.items() if k not in references}
        node = self.onnx.helper.make_node(operator, inputs, [output], domain=domain, **fixed)
        for name, reference in references.items():
            attribute = node.attribute.add()
            attribute.name, attribute.ref_attr_name = name, reference[1:]
            attribute.type = self.onnx.AttributeProto.INT
        self.nodes.append(node)
        return output

    def number(self, output: str, value: int | str, element_type: int | None = None) -> str:
        """Adds a scalar, int64 by default; `"@name"` refers to the function's attribute `name`."""
        if element_type is None:
            return self.add(output, "Constant", [], value_int=value)
        tensor = self.onnx.helper.make_tensor(output, element_type, [], [value])
        return self.add(output, "Constant", [], value=tensor)

    def cast(self, output: str, value: str, element_type: int | str) -> str:
        """Adds a conversion between integer types; values too large for it lose their high bits."""
        return self.add(output, "Cast", [value], to=element_type)

    def function(
        self, name: str, inputs: Sequence[str], attributes: Sequence[str], doc_string: str
    ) -> "onnx.FunctionProto":
        """Returns the function; its output has the name `y`."""
        opsets = [
            self.onnx.helper.make_opsetid("", OPSET),
            self.onnx.helper.make_opsetid(DOMAIN, 1),
        ]
        return self.onnx.helper.make_function(
            DOMAIN, name, inputs, ["y"], self.nodes, opsets, attributes, doc_string=doc_string
        )


@cache
def shift_right() -> "onnx.FunctionProto":
    """Returns `ShiftRight`: `floor(value / 2**shift)`, for any int64 and shifts from 0 to 63.

    BitShift supports only unsigned integers. If the sign bit of `value` is flipped, the bits stand
    for the unsigned number `value + 2**63`. After the shift, the shifted `2**63` is subtracted
    again. Although `2**63` does not fit into int64, the result is right, because unsigned and
    signed 64-bit sums wrap around.
    """
    body = FunctionBody()
    unsigned = body.kinds.UINT64
    body.number("sign_bit", 1 << 63, unsigned)
    body.cast("bits", "value", unsigned)
    body.add("flipped", "BitwiseXor", ["bits", "sign_bit"])
    body.cast("amount", "shift", unsigned)
    body.add("shifted", "BitShift", ["flipped", "amount"], direction="RIGHT")
    body.cast("shifted_value", "shifted", body.kinds.INT64)
    body.add("shifted_bit", "BitShift", ["sign_bit", "amount"], direction="RIGHT")
    body.cast("excess", "shifted_bit", body.kinds.INT64)
    body.add("y", "Sub", ["shifted_value", "excess"])
    return body.function(
        "ShiftRight", ["value", "shift"], [], "floor(value / 2**shift): an arithmetic right shift."
    )


def _half(body: FunctionBody) -> str:
    """Adds `half = 2**shift / 2`, which is 0 for a shift of 0."""
    body.number("one", 1, body.kinds.UINT64)
    body.cast("amount", "shift", body.kinds.UINT64)
    body.add("whole", "BitShift", ["one", "amount"], direction="LEFT")
    body.add("half_bits", "BitShift", ["whole", "one"], direction="RIGHT")
    return body.cast("half", "half_bits", body.kinds.INT64)


def _half_up(body: FunctionBody) -> None:
    body.add("raised", "Add", ["product", _half(body)])
    body.add("scaled", "ShiftRight", ["raised", "shift"], DOMAIN)


def _truncate(body: FunctionBody) -> None:
    body.add("scaled", "ShiftRight", ["product", "shift"], DOMAIN)


def _half_even(body: FunctionBody) -> None:
    """Adds `half - 1`, and 1 more if the truncated quotient is odd; nothing for a shift of 0."""
    body.number("unit", 1)
    body.add("quotient", "ShiftRight", ["product", "shift"], DOMAIN)
    body.add("last_bit", "BitwiseAnd", ["quotient", "unit"])
    body.add("is_shifted", "Greater", ["shift", body.number("zero", 0)])
    body.cast("one_if_shifted", "is_shifted", body.kinds.INT64)
    body.add("below_half", "Sub", [_half(body), "one_if_shifted"])
    body.add("odd", "Mul", ["last_bit", "one_if_shifted"])
    body.add("nearly", "Add", ["product", "below_half"])
    body.add("raised", "Add", ["nearly", "odd"])
    body.add("scaled", "ShiftRight", ["raised", "shift"], DOMAIN)


def _half_away(body: FunctionBody) -> None:
    body.add("is_negative", "Less", ["product", body.number("zero", 0)])
    body.add("minus_product", "Neg", ["product"])
    body.add("magnitude", "Where", ["is_negative", "minus_product", "product"])
    body.add("raised", "Add", ["magnitude", _half(body)])
    body.cast("raised_bits", "raised", body.kinds.UINT64)
    body.add("scaled_bits", "BitShift", ["raised_bits", "amount"], direction="RIGHT")
    body.cast("scaled_magnitude", "scaled_bits", body.kinds.INT64)
    body.add("minus_scaled", "Neg", ["scaled_magnitude"])
    body.add("scaled", "Where", ["is_negative", "minus_scaled", "scaled_magnitude"])


def _double(body: FunctionBody) -> None:
    """Adds `2**30` away from zero first if the shift is above 31, then rounds half up."""
    body.number("zero", 0)
    body.number("first_bits", 31)
    body.number("first_half", 1 << 30)
    body.add("is_long", "Greater", ["shift", "first_bits"])
    body.add("first", "Where", ["is_long", "first_half", "zero"])
    body.add("minus_first", "Neg", ["first"])
    body.add("is_negative", "Less", ["product", "zero"])
    body.add("away", "Where", ["is_negative", "minus_first", "first"])
    body.add("nearly", "Add", ["product", _half(body)])
    body.add("raised", "Add", ["nearly", "away"])
    body.add("scaled", "ShiftRight", ["raised", "shift"], DOMAIN)


_ROUNDINGS: dict[Rounding, Callable[[FunctionBody], None]] = {
    Rounding.HALF_UP: _half_up,
    Rounding.HALF_EVEN: _half_even,
    Rounding.HALF_AWAY: _half_away,
    Rounding.TRUNCATE: _truncate,
    Rounding.DOUBLE: _double,
}
"""The functions that add nodes which compute `scaled` from `product` and `shift`."""


def _saturate(body: FunctionBody, value: str, *, wide: bool) -> str:
    """Adds `clamp(value, low, high)`, in int32 if that holds the value, else with comparisons."""
    ends = [body.number("low", "@low"), body.number("high", "@high")]
    if wide:
        body.add("is_below", "Less", [value, "low"])
        body.add("raised_value", "Where", ["is_below", "low", value])
        body.add("is_above", "Greater", ["raised_value", "high"])
        return body.add("code", "Where", ["is_above", "high", "raised_value"])
    narrow = [body.cast(f"{name}_int32", name, body.kinds.INT32) for name in (value, *ends)]
    return body.add("code", "Clip", narrow)


@cache
def requantize(rounding: Rounding, wide: bool) -> "onnx.FunctionProto":
    """Returns the function that rescales `x`, with the attributes zero_point, low, high and to.

    Args:
        rounding: the rounding mode.
        wide: whether a rescaled value may need more than 32 bits before it is clamped.
    """
    body = FunctionBody()
    body.cast("accumulator", "x", body.kinds.INT64)
    body.add("product", "Mul", ["accumulator", "multiplier"])
    _ROUNDINGS[rounding](body)
    body.add("centred", "Add", ["scaled", body.number("zero_point", "@zero_point")])
    body.cast("y", _saturate(body, "centred", wide=wide), "@to")
    return body.function(
        REQUANTIZE[rounding] + "Wide" * wide,
        ["x", "multiplier", "shift"],
        ["zero_point", "low", "high", "to"],
        f"{_DEFINITION}, rounding {rounding.value}; with one multiplier and shift per channel.",
    )


@cache
def clamp() -> "onnx.FunctionProto":
    """Returns `Clamp`: int64 numbers `x`, clamped to `low` and `high`."""
    body = FunctionBody()
    body.cast("y", _saturate(body, "x", wide=True), body.kinds.INT64)
    return body.function("Clamp", ["x"], ["low", "high"], "clamp(x, low, high) in int64.")


@cache
def larger() -> "onnx.FunctionProto":
    """Returns `Larger`: the maximum of two int64 numbers."""
    body = FunctionBody()
    body.add("is_less", "Less", ["a", "b"])
    body.add("y", "Where", ["is_less", "b", "a"])
    return body.function("Larger", ["a", "b"], [], "max(a, b) in int64.")


@cache
def flip_sign() -> "onnx.FunctionProto":
    """Returns `FlipSign`: `x + 128` of an int8 number, as uint8."""
    body = FunctionBody()
    body.cast("bits", "x", body.kinds.UINT8)
    body.number("sign_bit", 128, body.kinds.UINT8)
    body.add("y", "BitwiseXor", ["bits", "sign_bit"])
    return body.function("FlipSign", ["x"], [], "x + 128 as uint8: int8 in offset binary.")


@cache
def limb() -> "onnx.FunctionProto":
    """Returns `Limb`: some bits of `x + offset` as uint8. The sum must not be negative."""
    body = FunctionBody()
    unsigned = body.kinds.UINT64
    body.cast("wide", "x", body.kinds.INT64)
    body.add("moved", "Add", ["wide", body.number("offset", "@offset")])
    body.cast("bits", "moved", unsigned)
    body.cast("amount", body.number("first", "@first_bit"), unsigned)
    body.add("shifted", "BitShift", ["bits", "amount"], direction="RIGHT")
    body.cast("mask_bits", body.number("mask", "@mask"), unsigned)
    body.add("kept", "BitwiseAnd", ["shifted", "mask_bits"])
    body.cast("y", "kept", body.kinds.UINT8)
    return body.function(
        "Limb",
        ["x"],
        ["offset", "first_bit", "mask"],
        "(x + offset) >> first_bit & mask as uint8.",
    )


@cache
def add_limb() -> "onnx.FunctionProto":
    """Returns `AddLimb`: `total + part * weight` in int64."""
    body = FunctionBody()
    body.cast("wide", "part", body.kinds.INT64)
    body.add("product", "Mul", ["wide", body.number("weight", "@weight")])
    body.add("y", "Add", ["total", "product"])
    return body.function(
        "AddLimb",
        ["total", "part"],
        ["weight"],
        ("total + part * weight: adds up products of limbs."),
    )


@cache
def window_sum() -> "onnx.FunctionProto":
    """Returns `WindowSum`: sums of `x` from `first` up to before `last` along one axis.

    It subtracts running sums, so windows may have any place and length. Running sums that are too
    large wrap around, but their differences are right.
    """
    body = FunctionBody()
    body.number("zero", 0)
    body.number("along", "@axis")
    body.add("axis_list", "Unsqueeze", ["along", "zero"])
    body.add("pair", "Constant", [], value_ints=[1, 0])
    body.add("zero_like", "CastLike", ["zero", "x"])
    body.add("preceded", "Pad", ["x", "pair", "zero_like", "axis_list"])
    body.add("running", "CumSum", ["preceded", "along"])
    body.add("upper", "Gather", ["running", "last"], axis="@axis")
    body.add("lower", "Gather", ["running", "first"], axis="@axis")
    body.add("y", "Sub", ["upper", "lower"])
    return body.function(
        "WindowSum",
        ["x", "first", "last"],
        ["axis"],
        "Sums of x[first:last] along an axis, one for each window.",
    )
