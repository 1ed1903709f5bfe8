"""Functions of the integer form, for what ai.onnx has no operator for.

Each is written in standard operators, so a runtime that knows none of them inlines it. Of int64
only sums, products, bits and comparisons are used: ONNX Runtime 1.31 compares the low halves of
int64 with their signs in Min, Max, Clip and Sign, which goes wrong beyond 32 bits.
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
"""Name of the function that rescales with each rounding; `Wide` is added to the general one."""

_DEFINITION = "clamp(round(x * multiplier / 2**shift) + zero_point, low, high)"


class FunctionBody:
    """Collects the nodes of one function; a value is called what it holds."""

    def __init__(self) -> None:
        self.onnx = onnx_package()
        self.kinds = self.onnx.TensorProto
        self.nodes: list[onnx.NodeProto] = []

    def add(
        self, output: str, operator: str, inputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> str:
        """Adds a node; an attribute given as `"@name"` is the function's attribute `name`."""
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
        """Adds a scalar, int64 unless said otherwise; `"@name"` is an attribute's value."""
        if element_type is None:
            return self.add(output, "Constant", [], value_int=value)
        tensor = self.onnx.helper.make_tensor(output, element_type, [], [value])
        return self.add(output, "Constant", [], value=tensor)

    def cast(self, output: str, value: str, element_type: int | str) -> str:
        """Adds a conversion between integer types; too large values lose their high bits."""
        return self.add(output, "Cast", [value], to=element_type)

    def function(
        self, name: str, inputs: Sequence[str], attributes: Sequence[str], doc_string: str
    ) -> "onnx.FunctionProto":
        """Returns the function; its output is called `y`."""
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

    BitShift knows unsigned integers alone. With its sign bit flipped, `value` is
    `value + 2**63` unsigned; what is left of `2**63` after the shift is taken away again. Unsigned
    and signed 64-bit sums wrap, so the result is right although `2**63` itself fits no int64.
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
    """Adds `half = 2**shift / 2`, 0 for a shift of 0."""
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
    """Adds `half - 1`, and 1 more to what would become odd; nothing for a shift of 0."""
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
    """Shifts above 31 add `2**30` away from zero first."""
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
"""What turns `product` and `shift` into `scaled`."""


def _saturate(body: FunctionBody, value: str, *, wide: bool) -> str:
    """Adds `clamp(value, low, high)`: in int32 where that holds the value, else by comparisons."""
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
    """Returns the function that rescales `x`, with attributes zero_point, low, high and to.

    Args:
        rounding: how.
        wide: whether a rescaled value, before it is clamped, may need more than 32 bits.
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
        f"{_DEFINITION}, rounding {rounding.value}; multiplier and shift by channel.",
    )


@cache
def clamp() -> "onnx.FunctionProto":
    """Returns `Clamp`: `x` between `low` and `high`, for int64."""
    body = FunctionBody()
    body.cast("y", _saturate(body, "x", wide=True), body.kinds.INT64)
    return body.function("Clamp", ["x"], ["low", "high"], "clamp(x, low, high) in int64.")


@cache
def larger() -> "onnx.FunctionProto":
    """Returns `Larger`: the maximum of two int64."""
    body = FunctionBody()
    body.add("is_less", "Less", ["a", "b"])
    body.add("y", "Where", ["is_less", "b", "a"])
    return body.function("Larger", ["a", "b"], [], "max(a, b) in int64.")


@cache
def flip_sign() -> "onnx.FunctionProto":
    """Returns `FlipSign`: `x + 128` as uint8 of an int8."""
    body = FunctionBody()
    body.cast("bits", "x", body.kinds.UINT8)
    body.number("sign_bit", 128, body.kinds.UINT8)
    body.add("y", "BitwiseXor", ["bits", "sign_bit"])
    return body.function("FlipSign", ["x"], [], "x + 128 as uint8: int8 in offset binary.")


@cache
def limb() -> "onnx.FunctionProto":
    """Returns `Limb`: some bits of `x + offset`, which must not be negative, as uint8."""
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
        "AddLimb", ["total", "part"], ["weight"], "total + part * weight: joins products of limbs."
    )


@cache
def window_sum() -> "onnx.FunctionProto":
    """Returns `WindowSum`: sums of `x` from `first` up to before `last` along one axis.

    Differences of running sums, which wrap where they are too long, so that windows may have any
    place and length.
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
