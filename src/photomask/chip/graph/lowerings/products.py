"""Lowers convolutions, linear layers, matrix products and batch norms."""

from typing import Any

import torch
from torch import Tensor

from photomask.chip.graph.builder import Call, CannotLower, Value
from photomask.chip.graph.lowerings.elementwise import lower_sum
from photomask.chip.graph.lowerings.pointwise import lower_pointwise
from photomask.chip.graph.lowerings.reducing import per_axis
from photomask.chip.graph.lowerings.registry import BatchAxis, lowers
from photomask.chip.graph.lowerings.rows import emit_of_two
from photomask.chip.graph.operations import ChannelAffine, Convolution, Linear, Matmul


@lowers("conv1d", "conv2d", is_fresh=True)
def _convolution(call: Call) -> Value:
    weight = call.constant("weight")
    rank = weight.ndim - 2
    stride, dilation = per_axis(call["stride"], rank), per_axis(call["dilation"], rank)
    padding = call["padding"]
    if padding == "valid":
        pairs = ((0, 0),) * rank
    elif padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        pairs = tuple((total // 2, total - total // 2) for total in totals)
    else:
        pairs = tuple((p, p) for p in per_axis(padding, rank))
    bias, made_of = _bias(call, len(weight))
    groups: Any = call["groups"]
    return call.emit(
        Convolution(stride, pairs, dilation, groups),
        [call.edge("input")],
        {"weight": weight, "bias": bias},
        made_of,
    )


def _bias(call: Call, outputs: int) -> tuple[Tensor, dict[str, tuple[Tensor, ...]]]:
    """Returns the bias of a layer, zeros where it has none, and what it was made of."""
    given = call["bias"]
    if isinstance(given, Tensor):
        return given, {}
    return torch.zeros(outputs), {"bias": ()}


@lowers("linear", batch=BatchAxis.NOT_LAST, is_fresh=True)
def _linear(call: Call) -> Value:
    if not isinstance(call["weight"], Tensor):
        raise CannotLower("its weight depends on the input, but must be constant")
    weight = call.constant("weight")
    bias, made_of = _bias(call, len(weight))
    return call.emit(Linear(), [call.edge("input")], {"weight": weight, "bias": bias}, made_of)


@lowers("addmm")
def _addmm(call: Call) -> Value:
    alpha: Any = call["alpha"]
    beta: Any = call["beta"]
    weight, bias = call.constant("mat2").t(), call.constant("self")
    weight = weight if alpha == 1 else weight * alpha
    bias = bias if beta == 1 else bias * beta
    if bias.numel() not in (1, len(weight)):
        raise CannotLower("its addend must be one constant number for each output channel")
    constants = {"weight": weight, "bias": bias.reshape(-1).expand(len(weight))}
    return call.emit(Linear(), [call.edge("mat1")], constants)


@lowers("matmul", "mm", "bmm")
def _matmul(call: Call) -> Value:
    second = "other" if "other" in call.arguments else "mat2"
    weight = call[second]
    if isinstance(weight, Tensor) and weight.ndim == 2:
        constants = {"weight": weight.t(), "bias": torch.zeros(weight.shape[1])}
        return call.emit(Linear(), [call.edge("self")], constants, {"bias": ()})
    if min(len(call.shape("self")), len(call.shape(second))) < 2 or len(call.result_shape) < 3:
        raise CannotLower(
            "both operands must have a batch axis and two more axes, or the second must be constant"
        )
    return emit_of_two(call, Matmul(), call["self"], weight)


@lowers("baddbmm")
def _baddbmm(call: Call) -> Value:
    """Lowers a matrix product with an addend, such as a mask of scores."""
    alpha: Any = call["alpha"]
    beta: Any = call["beta"]
    product = emit_of_two(call, Matmul(float(alpha)), call["batch1"], call["batch2"])
    addend = call["self"]
    if beta == 0:
        return product
    if isinstance(addend, Tensor):
        addend = addend * beta
    elif beta != 1:
        addend = lower_pointwise("mul_scalar", call, call.edge("self"), float(beta))
    return lower_sum(call, product, addend, 1)


@lowers("_native_batch_norm_legit_no_training", "batch_norm", is_fresh=True)
def _batch_norm(call: Call) -> Value:
    if call.get("training") or call["running_mean"] is None:
        raise CannotLower(
            "it normalizes by the statistics of the batch; only running statistics are supported"
        )
    mean, variance = call.constant("running_mean"), call.constant("running_var")
    scale = torch.rsqrt(variance.double() + call["eps"])  # type: ignore[operator]
    if isinstance(call["weight"], Tensor):
        scale = scale * call.constant("weight").double()
    offset = -mean.double() * scale
    if isinstance(call["bias"], Tensor):
        offset = offset + call.constant("bias").double()
    given = [call["weight"], call["running_var"], call["running_mean"], call["bias"]]
    parts = [tensor for tensor in given if isinstance(tensor, Tensor)]
    constants = {"weight": scale.float(), "bias": offset.float()}
    return call.emit(
        ChannelAffine(), [call.edge("input")], constants, dict.fromkeys(constants, parts)
    )
