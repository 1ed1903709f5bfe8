"""Lowers functions of one number, which become clamps or lookup tables."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.graph.builder import Call, CannotLower, EdgeName
from photomask.chip.graph.lowerings.registry import BatchAxis, lowers
from photomask.chip.graph.operations import Clamp, Pointwise, PointwiseFunction

FUNCTIONS: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "abs": (torch.abs, ()),
    "absolute": (torch.abs, ()),
    "atan": (torch.atan, ()),
    "celu": (F.celu, ("alpha",)),
    "cos": (torch.cos, ()),
    "elu": (torch.ops.aten.elu, ("alpha", "scale", "input_scale")),
    "erf": (torch.erf, ()),
    "exp": (torch.exp, ()),
    "exp2": (torch.exp2, ()),
    "expm1": (torch.expm1, ()),
    "gelu": (F.gelu, ("approximate",)),
    "hardsigmoid": (F.hardsigmoid, ()),
    "hardswish": (F.hardswish, ()),
    "leaky_relu": (F.leaky_relu, ("negative_slope",)),
    "hardshrink": (F.hardshrink, ("lambd",)),
    "log": (torch.log, ()),
    "log10": (torch.log10, ()),
    "log1p": (torch.log1p, ()),
    "log2": (torch.log2, ()),
    "log_sigmoid": (F.logsigmoid, ()),
    "mish": (F.mish, ()),
    "neg": (torch.neg, ()),
    "negative": (torch.neg, ()),
    "pow": (torch.pow, ("exponent",)),
    "reciprocal": (torch.reciprocal, ()),
    "rsqrt": (torch.rsqrt, ()),
    "selu": (F.selu, ()),
    "sigmoid": (torch.sigmoid, ()),
    "sign": (torch.sign, ()),
    "silu": (F.silu, ()),
    "sin": (torch.sin, ()),
    "softplus": (F.softplus, ("beta", "threshold")),
    "softshrink": (F.softshrink, ("lambd",)),
    "sqrt": (torch.sqrt, ()),
    "square": (torch.square, ()),
    "tanh": (torch.tanh, ()),
    "threshold": (F.threshold, ("threshold", "value")),
}
"""By ATen name, the function of one tensor, and the scalar arguments of the schema for it."""


def lower_pointwise(name: str, call: Call, edge: str | None = None, *scalars: float) -> EdgeName:
    """Emits a clamp or a function of one number, and returns its edge.

    Args:
        name: the ATen operator, or `add_scalar`, `mul_scalar` or `leaky_relu_scalar`.
        call: the traced call.
        edge: the operand; None for the argument `self` of the call.
        scalars: the addend and the operand's sign for `add_scalar`, the factor for `mul_scalar`,
            or the slope for `leaky_relu_scalar`.

    Raises:
        CannotLower: the operator is no supported function of one number.
    """
    if name == "add_scalar":
        added, sign = scalars
        function = PointwiseFunction(name, partial(_affine, factor=sign, added=added))
    elif name == "mul_scalar":
        function = PointwiseFunction(name, partial(_affine, factor=scalars[0], added=0.0))
    elif name in CLAMPS:
        return call.emit(CLAMPS[name](call), [edge or call.edge("self")])
    elif name == "leaky_relu_scalar":
        function = PointwiseFunction("prelu", partial(F.leaky_relu, negative_slope=scalars[0]))
    elif name in FUNCTIONS:
        apply, names = FUNCTIONS[name]
        values = {argument: call[argument] for argument in names}
        if any(isinstance(value, (EdgeName, Tensor)) for value in values.values()):
            raise CannotLower("one of its arguments is a tensor, but must be a constant number")
        keyword = name in ("gelu", "leaky_relu", "softplus", "celu")
        bound = partial(apply, **values) if keyword else _positional(apply, list(values.values()))
        function = PointwiseFunction(name, bound)
    else:
        raise CannotLower("it is outside the supported set")
    return call.emit(Pointwise((function,)), [edge or call.edge("self")])


def _affine(x: Tensor, factor: float, added: float) -> Tensor:
    return x * factor + added


def _positional(apply: Callable[..., Tensor], values: list[object]) -> Callable[[Tensor], Tensor]:
    return lambda x: apply(x, *values)


def _bound(value: object, missing: float) -> float:
    if value is None:
        return missing
    if (isinstance(value, Tensor) and value.numel() == 1) or isinstance(value, (int, float)):
        bound = float(value)
    else:
        raise CannotLower("each of its bounds must be one constant number")
    if math.isnan(bound):
        raise CannotLower("a bound is NaN")
    return bound


CLAMPS: dict[str, Callable[[Call], Clamp]] = {
    "relu": lambda call: Clamp(0.0, math.inf),
    "relu6": lambda call: Clamp(0.0, 6.0),
    "hardtanh": lambda call: Clamp(
        _bound(call["min_val"], -math.inf), _bound(call["max_val"], math.inf)
    ),
    "clamp": lambda call: Clamp(_bound(call["min"], -math.inf), _bound(call["max"], math.inf)),
    "clip": lambda call: Clamp(_bound(call["min"], -math.inf), _bound(call["max"], math.inf)),
    "clamp_min": lambda call: Clamp(_bound(call["min"], -math.inf), math.inf),
    "clamp_max": lambda call: Clamp(-math.inf, _bound(call["max"], math.inf)),
}
"""By ATen name, the clamp, which is fused into a requantization where one comes before it."""

for _name in (*FUNCTIONS, *CLAMPS):
    lowers(_name, batch=BatchAxis.ANYWHERE, is_fresh=True)(partial(lower_pointwise, _name))
