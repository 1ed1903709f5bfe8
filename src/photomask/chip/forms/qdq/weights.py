"""Convolution and linear with dequantized weights and biases."""

from typing import Any

import numpy as np

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.forms.qdq.context import QdqGraph
from photomask.chip.operators import Convolution
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step


def convolution(graph: QdqGraph, step: Step) -> None:
    """Padding by the zero point is padding by 0."""
    operator, x = step.operator, graph.program.edges[step.inputs[0]]
    assert isinstance(operator, Convolution)  # noqa: S101 - by EMITTERS
    padded = any(margin for pair in operator.padding for margin in pair)
    if padded and operator.padding_value != x.zero_point:
        raise graph.refusal(
            step, f"it pads with {operator.padding_value}, not the zero point {x.zero_point}"
        )
    graph.finish(
        step,
        "Conv",
        [graph.real(x.name), _weight(graph, step), _bias(graph, step)],
        pads=[margin for side in zip(*operator.padding, strict=True) for margin in side],
        strides=operator.stride,
        dilations=operator.dilation,
        group=operator.groups,
    )


def linear(graph: QdqGraph, step: Step) -> None:
    """Gemm on matrices; MatMul and Add on what has more axes."""
    x = graph.program.edges[step.inputs[0]]
    weight, bias = _weight(graph, step), _bias(graph, step)
    if len(x.shape) == 2:
        graph.finish(step, "Gemm", [graph.real(x.name), weight, bias], transB=1)
        return
    transposed = graph.node("Transpose", [weight], step, "transposed", perm=(1, 0))
    product = graph.node("MatMul", [graph.real(x.name), transposed], step, "product")
    graph.finish(step, "Add", [product, bias])


def _weight(graph: QdqGraph, step: Step) -> str:
    """Adds the weights behind their DequantizeLinear: per tensor, channel or group."""
    parameters, kinds = graph.program.parameters(step), graph.onnx.TensorProto
    weight, name = parameters["weight"], step.tensors["weight"]
    format = graph.program.formats[name]
    kind = graph.narrowest(format.bits, format.signed, step)
    scale = _unit(graph, step) / graph.program.edges[step.inputs[0]].scale[0]
    zero_point = parameters.get("weight_zero_point", np.zeros(1, dtype=np.int64))
    attributes: dict[str, Any] = {"axis": 0}
    if len(zero_point) > 1:
        scale = np.broadcast_to(scale, zero_point.shape)
    if "group_multiplier" in parameters:
        multiplier = parameters["group_multiplier"]
        size = -(-weight.shape[1] // multiplier.shape[1])
        used = multiplier[:, : -(-weight.shape[1] // size)]
        shape = (*used.shape, *weight.shape[2:])
        trailing = (1,) * (weight.ndim - 2)
        scale = np.broadcast_to((scale[:, None] * used).reshape(*used.shape, *trailing), shape)
        zero_point = np.broadcast_to(zero_point.reshape(-1, 1, *trailing), shape)
        attributes = {"axis": 1, "block_size": size}
    else:
        zero_point = np.broadcast_to(zero_point, scale.shape)
    if scale.size == 1:
        scale, zero_point, attributes = scale.reshape(()), zero_point.reshape(()), {}
    ends = Interval(int(zero_point.min()), int(zero_point.max()))
    if not ends.within(IntFormat(bits=format.bits, signed=format.signed).interval):
        raise graph.refusal(step, f"its weight zero points are no {format} as its weights are")
    inputs = [
        graph.tensor(name, weight, kind),
        graph.tensor(f"{name}/scale", scale, kinds.FLOAT),
        graph.tensor(f"{name}/zero_point", zero_point, kind),
    ]
    return graph.node("DequantizeLinear", inputs, step, "weight", **attributes)


def _bias(graph: QdqGraph, step: Step) -> str:
    """Adds the bias as int32 behind its DequantizeLinear.

    The input's zero point, which a program folds into the bias, is taken out again.
    """
    parameters, kinds = graph.program.parameters(step), graph.onnx.TensorProto
    zero_point = graph.program.edges[step.inputs[0]].zero_point
    weight = effective_weight(parameters)
    bias = parameters["bias"] + zero_point * weight.reshape(len(weight), -1).sum(axis=1)
    if not Interval(int(bias.min()), int(bias.max())).within(
        IntFormat(bits=32, signed=True).interval
    ):
        raise graph.refusal(step, "its bias has more than 32 bits")
    unit = _unit(graph, step)
    attributes: dict[str, Any] = {"axis": 0} if unit.size > 1 else {}
    name = step.tensors["bias"]
    scale = unit if unit.size > 1 else unit.reshape(())
    inputs = [
        graph.tensor(name, bias, kinds.INT32, "without the input's zero point"),
        graph.tensor(f"{name}/scale", scale, kinds.FLOAT),
    ]
    return graph.node("DequantizeLinear", inputs, step, "bias", **attributes)


def _unit(graph: QdqGraph, step: Step) -> np.ndarray:
    """Returns the real value of one unit of the accumulator, [1] or [O]."""
    edge = graph.program.edges[step.output]
    if edge.zero_point:
        raise graph.refusal(step, "its accumulator has a zero point")
    return np.array(edge.scale)
