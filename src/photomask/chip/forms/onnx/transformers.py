"""Writes softmax, norms and embeddings in integers, with standard operators."""

import numpy as np

from photomask.chip.forms.onnx import transformer_functions as functions
from photomask.chip.forms.onnx.context import ONNX, IntegerGraph
from photomask.chip.forms.onnx.functions import shift_right
from photomask.chip.operators import Embedding, Normalize, Softmax
from photomask.chip.operators.normalize import INVERSE_BITS
from photomask.chip.program import Step


@ONNX.of(Softmax)
def softmax(operator: Softmax, graph: IntegerGraph, step: Step) -> None:
    """Adds a call of the function."""
    kinds, parameters = graph.onnx.TensorProto, graph.program.parameters(step)
    edge = graph.program.edges[step.inputs[0]]
    x = graph.operand(step.inputs[0], kinds.INT32, step)
    inputs = [x, graph.tensor(step.tensors["table"], parameters["table"], kinds.INT64)]
    shift = operator.reciprocal_bits - operator.fraction_bits
    attributes = {
        "last": len(parameters["table"]) - 1,
        "whole": 1 << operator.reciprocal_bits,
        "half": 1 << (shift - 1),
        "shift": shift,
    }
    masks = list(step.inputs[1:])
    if "mask" in parameters:
        masks.append(graph.tensor(step.tensors["mask"], parameters["mask"] != 0, kinds.UINT8))
    if masks:
        attributes["low"] = edge.low
    graph.function(shift_right())
    graph.finish(step, kinds.INT64, functions.softmax(len(masks)), [*inputs, *masks], **attributes)


@ONNX.of(Normalize)
def normalize(operator: Normalize, graph: IntegerGraph, step: Step) -> None:
    """Adds a call of the function, then gain and bias."""
    kind, parameters = graph.onnx.TensorProto.INT64, graph.program.parameters(step)
    x = graph.centred(step.inputs[0], operator.zero_point, kind, step)
    if "channel_shift" in parameters:
        factors = np.int64(1) << parameters["channel_shift"]
        factor = graph.tensor(f"{step.name}/channel_factors", factors, kind)
        x = graph.node("Mul", [x, factor], step, "channels")
    ones = graph.tensor(f"{step.name}/ones", np.ones((operator.terms, 1), np.int64), kind)
    attributes: dict[str, int] = {
        "epsilon": operator.epsilon,
        "shift": INVERSE_BITS - operator.fraction_bits,
    }
    if operator.centred:
        attributes["terms"] = operator.terms
    graph.function(shift_right())
    graph.function(functions.inverse_root())
    function = functions.normalize(operator.centred)
    normal = graph.call(function, [x, ones], step, "normal", output="", **attributes)
    gain, bias = (graph.tensor(step.tensors[r], parameters[r], kind) for r in ("gain", "bias"))
    scaled = graph.node("Mul", [normal, gain], step, "scaled")
    graph.finish(step, kind, "Add", [scaled, bias])


@ONNX.of(Embedding)
def embedding(operator: Embedding, graph: IntegerGraph, step: Step) -> None:
    """Adds a Gather node that reads rows of the table."""
    kinds, table = graph.onnx.TensorProto, graph.program.parameters(step)["table"]
    kind = graph.edge_type(step.output)
    rows = graph.operand(step.inputs[0], kinds.INT32, step)
    graph.finish(step, kind, "Gather", [graph.tensor(step.tensors["table"], table, kind), rows])
