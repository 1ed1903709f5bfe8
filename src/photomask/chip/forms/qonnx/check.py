"""Checks that a QONNX file computes the program's codes, each step from the oracle's codes.

ONNX Runtime does not know Quant nodes. They are therefore turned into calls of functions that
define them with standard operators. Source of the definitions: the package qonnx 1.0,
`custom_op/general/intquant.py` and `bipolar_quant.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from photomask.chip.forms.form import FormCheck, Sample
from photomask.chip.forms.onnx_builder import onnx_package
from photomask.chip.forms.onnx_steps import activations_in, compare_steps, reading_given
from photomask.chip.forms.qonnx.context import DOMAIN
from photomask.chip.program import IntegerProgram
from photomask.errors import EngineError

if TYPE_CHECKING:
    import onnx

ROUNDINGS = {
    "ROUND": "rounded = Round(clipped)",
    "FLOOR": "rounded = Floor(clipped)",
    "HALF_UP": """size = Abs(clipped)
    half = Constant<value_float: float = 0.5>()
    raised = Add(size, half)
    whole_size = Floor(raised)
    side = Sign(clipped)
    rounded = Mul(side, whole_size)""",
}
"""The lines that compute `rounded` from `clipped`, by rounding mode."""

QUANT = """<domain: "{domain}", opset_import: ["": 13]>
Quant{mode}<signed, narrow>(x, scale, zero_point, bits) => (y)
{{
    is_signed_int = Constant<value_int: int = @signed>()
    is_signed = Cast<to: int = 1>(is_signed_int)
    is_narrow_int = Constant<value_int: int = @narrow>()
    is_narrow = Cast<to: int = 1>(is_narrow_int)
    one = Constant<value_float: float = 1.0>()
    two = Constant<value_float: float = 2.0>()
    magnitude_bits = Sub(bits, is_signed)
    magnitude = Pow(two, magnitude_bits)
    below = Sub(is_narrow, magnitude)
    low = Mul(below, is_signed)
    is_unsigned = Sub(one, is_signed)
    kept_off = Mul(is_narrow, is_unsigned)
    largest = Sub(magnitude, one)
    high = Sub(largest, kept_off)
    scaled = Div(x, scale)
    moved = Add(scaled, zero_point)
    at_most = Min(moved, high)
    clipped = Max(at_most, low)
    {rounding}
    centred = Sub(rounded, zero_point)
    y = Mul(centred, scale)
}}"""

BIPOLAR_QUANT = """<domain: "{domain}", opset_import: ["": 13]>
BipolarQuant(x, scale) => (y)
{{
    zero = Constant<value_float: float = 0.0>()
    is_positive = GreaterOrEqual(x, zero)
    minus_scale = Neg(scale)
    y = Where(is_positive, scale, minus_scale)
}}"""


def check_steps(
    program: IntegerProgram, model: "onnx.ModelProto", samples: Sequence[Sample]
) -> FormCheck:
    """Runs every step in ONNX Runtime on the oracle's own codes.

    Args:
        program: the program that the model was made from.
        model: the model, as it was read from a file.
        samples: the samples to run, at least one.

    Raises:
        DocumentError: the model lacks an activation.
        DataError: there are no samples, or they do not fit the program.
        EngineError: ONNX Runtime refuses the model, or fails.
        MissingDependencyError: onnxruntime is not installed.
    """
    edges = activations_in(model, program)
    changed = reading_given(model, edges)
    _define_quant(changed)
    return compare_steps(program, changed, edges, samples)


def _define_quant(model: "onnx.ModelProto") -> None:
    """Adds functions that define Quant to a model, and makes its Quant nodes call them."""
    parse = onnx_package().parser.parse_function
    for mode, rounding in ROUNDINGS.items():
        text = QUANT.format(domain=DOMAIN, mode=mode, rounding=rounding)
        model.functions.append(parse(text))
    model.functions.append(parse(BIPOLAR_QUANT.format(domain=DOMAIN)))
    for node in model.graph.node:
        if node.op_type == "Quant" and node.domain == DOMAIN:
            (mode,) = [a.s.decode() for a in node.attribute if a.name == "rounding_mode"] or [""]
            if mode not in ROUNDINGS:
                raise EngineError(
                    f"the node {node.name!r} has the rounding mode {mode!r}, expected one of "
                    f"{[*ROUNDINGS]}"
                )
            kept = [a for a in node.attribute if a.name != "rounding_mode"]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.op_type = f"Quant{mode}"
