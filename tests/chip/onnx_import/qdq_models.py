"""Small quantized ONNX models, written node by node, and what ONNX Runtime makes of them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from photomask.chip.onnx_import import import_qdq
from photomask.chip.program import IntegerProgram, NumpyEngine
from photomask.chip.target import Target, load_target

KINDS = {
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16,
    "int4": TensorProto.INT4,
    "int32": TensorProto.INT32,
}
RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "int4": (-8, 7)}


class QdqModel:
    """A graph in the making; every method returns the name of a tensor."""

    def __init__(self, opset: int = 21, seed: int = 0):
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.samples: dict[str, np.ndarray] = {}

    def constant(self, values: Any, dtype: Any = None, kind: str | None = None) -> str:
        name = f"constant{len(self.constants)}"
        array = np.asarray(values, dtype=dtype)
        if kind is None:
            self.constants.append(numpy_helper.from_array(array, name))
        else:
            self.constants.append(
                helper.make_tensor(name, KINDS[kind], array.shape, array.astype(int).ravel())
            )
        return name

    def node(self, kind: str, inputs: list[str], *, name: str = "", **attributes: Any) -> str:
        output = name or f"{kind.lower()}{len(self.nodes)}"
        domain = attributes.pop("domain", "")
        made = helper.make_node(
            kind, inputs, [output], name=f"/{output}/{kind}", domain=domain, **attributes
        )
        self.nodes.append(made)
        return output

    def quantized(
        self, x: str, scale: float = 0.05, zero_point: int = 0, kind: str = "int8", domain: str = ""
    ) -> str:
        """A QuantizeLinear and a DequantizeLinear."""
        parameters = [self.constant(scale, np.float32), self.constant(zero_point, kind=kind)]
        codes = self.node("QuantizeLinear", [x, *parameters], name=f"{x}_codes", domain=domain)
        return self.node("DequantizeLinear", [codes, *parameters], name=f"{x}_real", domain=domain)

    def input(
        self, shape: tuple[int, ...], scale: float = 0.05, zero_point: int = 3, kind: str = "int8"
    ) -> str:
        """A quantized input with random samples."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", *shape[1:]))
        )
        low, high = RANGES[kind]
        codes = self.random.integers(low, high + 1, (5, *shape[1:]))
        self.samples[name] = ((codes - zero_point) * np.float32(scale)).astype(np.float32)
        return self.quantized(name, scale, zero_point, kind)

    def weight(self, shape: tuple[int, ...], *, axis: int | None = 0, kind: str = "int8") -> str:
        """A quantized weight, with a scale for each channel of `axis`."""
        low, high = RANGES[kind]
        codes = self.constant(self.random.integers(low + 1, high + 1, shape), kind=kind)
        count = () if axis is None else (shape[axis],)
        scale = self.random.uniform(0.001, 0.01, count)
        parameters = [
            self.constant(scale, np.float32),
            self.constant(np.zeros(count), kind=kind),
        ]
        named = {} if axis is None else {"axis": axis}
        return self.node("DequantizeLinear", [codes, *parameters], **named)

    def output(self, x: str, scale: float = 0.05, zero_point: int = -2, kind: str = "int8") -> str:
        """A quantized output."""
        real = self.quantized(x, scale, zero_point, kind)
        self.outputs.append(helper.make_tensor_value_info(real, TensorProto.FLOAT, None))
        return real

    def build(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "graph", self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def edge_name(tensor: str) -> str:
    """Returns the name that the edge of a tensor has."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", tensor).strip("_")


def codes_of_runtime(
    model: onnx.ModelProto, samples: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns every QuantizeLinear's codes by the name of the edge, nothing fused."""
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    codes = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }
    for name in codes:
        watched.graph.output.append(helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options)
    found = session.run(list(codes), samples)
    return {
        edge_name(real): array.astype(np.int64)
        for real, array in zip(codes.values(), found, strict=True)
    }


def distances(program: IntegerProgram, runtime: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns `program - runtime` of every edge that both have, each computed from equal codes.

    Every step reads what ONNX Runtime computed, where it has that edge, so that a difference is
    that of one edge and not of all before it.
    """
    values = {name: runtime[name] for name in program.inputs}
    found = {}
    for step in program.steps:
        result = step.operator.run_numpy(
            [values[name] for name in step.inputs], program.parameters(step)
        )
        if step.output in runtime:
            found[step.output] = result - runtime[step.output]
            result = runtime[step.output]
        values[step.output] = result
    return found


def imported(
    make: QdqModel | onnx.ModelProto | Path, target: Target | str = "onnxruntime"
) -> IntegerProgram:
    model = make.build() if isinstance(make, QdqModel) else make
    return import_qdq(model, load_target(target) if isinstance(target, str) else target)


def run(program: IntegerProgram, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs for real samples."""
    import torch

    codes = {
        name: program.quantize_input(torch.from_numpy(samples[name]), name).numpy()
        for name in program.inputs
    }
    return NumpyEngine(program).run(codes)
