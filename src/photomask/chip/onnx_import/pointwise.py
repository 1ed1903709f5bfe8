"""Imports functions of one number, which become clamps or tables."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.graph.operations import Clamp, Pointwise, PointwiseFunction
from photomask.chip.onnx_import.call import Call
from photomask.chip.onnx_import.graph import Rescale
from photomask.chip.onnx_import.rounding import is_code, real_of
from photomask.chip.onnx_import.values import CannotImport, Value


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


def _hard_swish(x: Tensor) -> Tensor:
    return x * _hard_sigmoid(x, 1 / 6, 0.5)


def _selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def _elu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def _celu(x: Tensor, alpha: float) -> Tensor:
    return x.clamp(min=0) + (alpha * torch.expm1(x / alpha)).clamp(max=0)


def _swish(x: Tensor, alpha: float) -> Tensor:
    return x * torch.sigmoid(alpha * x)


def _thresholded(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


FUNCTIONS: dict[str, tuple[Callable[..., Tensor], dict[str, float]]] = {
    "Abs": (torch.abs, {}),
    "Celu": (_celu, {"alpha": 1.0}),
    "Elu": (_elu, {"alpha": 1.0}),
    "Erf": (torch.erf, {}),
    "Exp": (torch.exp, {}),
    "HardSigmoid": (_hard_sigmoid, {"alpha": 0.2, "beta": 0.5}),
    "HardSwish": (_hard_swish, {}),
    "LeakyRelu": (lambda x, alpha: torch.where(x < 0, alpha * x, x), {"alpha": 0.01}),
    "Log": (torch.log, {}),
    "Mish": (F.mish, {}),
    "Neg": (torch.neg, {}),
    "Reciprocal": (torch.reciprocal, {}),
    "Selu": (_selu, {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "Sigmoid": (torch.sigmoid, {}),
    "Sign": (torch.sign, {}),
    "Softplus": (lambda x: torch.logaddexp(x, torch.zeros_like(x)), {}),
    "Softsign": (F.softsign, {}),
    "Sqrt": (torch.sqrt, {}),
    "Swish": (_swish, {"alpha": 1.0}),
    "Tanh": (torch.tanh, {}),
    "ThresholdedRelu": (_thresholded, {"alpha": 1.0}),
}
"""By ONNX operator, the function in float64, and its float attributes with their defaults."""


def function(call: Call) -> Value:
    """Imports a function of `FUNCTIONS` as a table."""
    apply, defaults = FUNCTIONS[call.node.op_type]
    attributes = {name: call.number(name, default) for name, default in defaults.items()}
    return _tabulated(call, 0, call.node.op_type.lower(), partial(apply, **attributes))


def gelu(call: Call) -> Value:
    """Imports a GELU, exact or approximated by a hyperbolic tangent, as a table."""
    approximate = call.word("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise CannotImport(f"its approximate is {approximate!r}; expected 'none' or 'tanh'")
    return _tabulated(call, 0, "gelu", partial(F.gelu, approximate=approximate))


def prelu(call: Call) -> Value:
    """Imports a leaky ReLU with one constant slope, as a table."""
    slope = call.constant_number(1, call.rank)
    if slope is None or not math.isfinite(slope):
        raise CannotImport("its slope must be one finite constant number")
    return _tabulated(call, 0, "prelu", lambda x: torch.where(x < 0, slope * x, x))


def affine(call: Call, position: int, factor: float, added: float) -> Value:
    """Imports `x * factor + added` with constant numbers, as a table."""
    if not math.isfinite(factor) or not math.isfinite(added):
        raise CannotImport("its constant must be finite")
    return _tabulated(call, position, "affine", lambda x: x * factor + added)


def quotient(call: Call, divisor: float) -> Value:
    """Imports `x / divisor` with a constant number, which may be 0, as a table."""
    if math.isnan(divisor):
        raise CannotImport("its divisor must be a number, but is NaN")
    return _tabulated(call, 0, "quotient", lambda x: x / divisor)


def _tabulated(call: Call, position: int, name: str, apply: Callable[[Tensor], Tensor]) -> Value:
    """Adds a function of quantized values, or appends it to the function before it."""
    new, before = PointwiseFunction(name, partial(_as_float32, apply)), call.pending(position)
    if before is not None and isinstance(before.operation, Pointwise):
        operation = replace(before.operation, functions=(*before.operation.functions, new))
        return call.builder.replace(before.name, call.output, operation=operation)
    return call.emit(Pointwise((new,)), [call.quantized(position)])


def _as_float32(apply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a function with argument and result rounded to float32, as the file's operator."""
    return apply(x.float().double()).float().double()


def relu(call: Call) -> Value:
    """Imports `max(x, 0)`."""
    return _clamped(call, Clamp(0.0, math.inf))


def clip(call: Call) -> Value:
    """Imports `max(low, min(high, x))`."""
    low = _bound(call, 1, "min", -math.inf)
    high = _bound(call, 2, "max", math.inf)
    if math.isnan(low) or math.isnan(high):
        raise CannotImport(f"its bounds must be numbers, but are {low} and {high}")
    # Where the lower bound exceeds the upper one, every result is the upper one.
    return _clamped(call, Clamp(min(low, high), high))


def _bound(call: Call, position: int, name: str, missing: float) -> float:
    if call.value(position) is None:
        return float(call.attribute(name, "FLOAT", missing))
    number = call.constant_number(position)
    if number is None:
        raise CannotImport("each of its bounds must be one constant number")
    return number


def _clamped(call: Call, clamp: Clamp) -> Value:
    """Adds a clamp, as the saturation of the rescaling before it where there is one."""
    node = call.pending()
    if node is None:
        return _clamped_codes(call, clamp)
    if isinstance(node.operation, Pointwise):
        return _tabulated(call, 0, "clamp", clamp.apply)
    if not node.operation.takes_clamp:
        return call.move(clamp)
    if node.clamp is not None:
        ends = [max(clamp.low, min(clamp.high, x)) for x in (node.clamp.low, node.clamp.high)]
        clamp = Clamp(*ends)
    return call.builder.replace(node.name, call.output, clamp=clamp)


def _clamped_codes(call: Call, clamp: Clamp) -> Value:
    """Clamps quantized values, as codes where that is exact, else as part of a rescaling."""
    name = call.quantized()
    scale = call.builder.known_scale(name)
    lowest, highest = (real_of(end, scale) for end in (scale.format.low, scale.format.high))
    keeps_codes = (clamp.low <= lowest or is_code(clamp.low, scale)) and (
        clamp.high >= highest or is_code(clamp.high, scale)
    )
    if keeps_codes and not call.builder.is_quantized_next(call.output):
        return call.move(clamp)
    return call.emit(Rescale(), [name], clamp=clamp)
