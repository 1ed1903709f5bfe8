"""Writes weights and biases with a DequantizeLinear node behind each."""

from typing import Any

import numpy as np

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.forms.qdq.context import QdqGraph
from photomask.chip.operators.weights import effective_weight
from photomask.chip.program import Step
from photomask.errors import FormError


def quantized_weight(graph: QdqGraph, step: Step) -> str:
    """Adds the weights and a DequantizeLinear node with scales per tensor, channel or group."""
    parameters, kinds = graph.program.parameters(step), graph.onnx.TensorProto
    weight, name = parameters["weight"], step.tensors["weight"]
    format = graph.program.formats[name]
    kind = graph.narrowest(format.bits, format.signed)
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
        scale = scale.reshape(())
        zero_point = zero_point.reshape(())
        attributes = {}
    ends = Interval(int(zero_point.min()), int(zero_point.max()))
    if not ends.within(IntFormat(bits=format.bits, signed=format.signed).interval):
        raise FormError(f"its weight zero points do not fit {format}, the format of its weights")
    inputs = [
        graph.tensor(name, weight, kind),
        graph.tensor(f"{name}/scale", scale, kinds.FLOAT),
        graph.tensor(f"{name}/zero_point", zero_point, kind),
    ]
    return graph.node("DequantizeLinear", inputs, step, "weight", **attributes)


def quantized_bias(graph: QdqGraph, step: Step) -> str:
    """Adds the bias as int32, with a DequantizeLinear node behind it.

    A program folds the input's zero point into the bias. This function takes it out again.
    """
    parameters, kinds = graph.program.parameters(step), graph.onnx.TensorProto
    zero_point = graph.program.edges[step.inputs[0]].zero_point
    weight = effective_weight(parameters)
    bias = parameters["bias"] + zero_point * weight.reshape(len(weight), -1).sum(axis=1)
    if not Interval(int(bias.min()), int(bias.max())).within(
        IntFormat(bits=32, signed=True).interval
    ):
        raise FormError("its bias has more than 32 bits")
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
        raise FormError("its accumulator has a zero point, which this form does not support")
    return np.array(edge.scale)
