"""The graph of the Deeploy form: names that C can hold, integer types, and RequantShift."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.onnx_builder import IR_VERSION, metadata, onnx_package
from photomask.chip.forms.writers import Writers
from photomask.chip.program import IntegerProgram, Step
from photomask.errors import FormError

if TYPE_CHECKING:
    import onnx

OPSET = 10
"""The newest opset whose Pad has its amounts as attributes, as Deeploy's parser needs them."""
INT32 = Interval(-(1 << 31), (1 << 31) - 1)
INT8 = Interval(-128, 127)


class DeeployGraph:
    """Nodes and tensors with names that are C identifiers.

    Attributes:
        program: the program that the model computes.
        folded: biases that a convolution leaves to the RequantShift behind it, by edge.
    """

    def __init__(self, program: IntegerProgram):
        """Gives every edge a name; inputs and outputs get the names of Deeploy's tests."""
        self.onnx = onnx_package()
        self.program = program
        self.folded: dict[str, np.ndarray] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []
        self._infos: dict[str, onnx.ValueInfoProto] = {}
        self._names = {name: f"input_{at}" for at, name in enumerate(program.inputs)}
        self._taken = set(self._names.values())
        for at, name in enumerate(dict.fromkeys(program.outputs)):
            self._names.setdefault(name, f"output_{at}")
            self._taken.add(f"output_{at}")
        for name in program.edges:
            if name not in self._names:
                self._names[name] = self.free(name)
        for edge in program.edges.values():
            self.describe(self.name(edge.name), edge.shape, edge.format.bits, edge.format.signed)

    def name(self, edge: str) -> str:
        """Returns the name of an edge in the model."""
        return self._names[edge]

    def free(self, wanted: str) -> str:
        """Returns an identifier that is not used yet."""
        base = "_".join(re.findall(r"[A-Za-z0-9]+", wanted)) or "tensor"
        base = f"t_{base}" if base[0].isdigit() else base
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name

    def describe(self, name: str, shape: tuple[int, ...], bits: int, signed: bool) -> None:
        """States the shape and the data type of a value."""
        kinds = self.onnx.TensorProto
        kind = kinds.INT32 if bits > 8 else (kinds.INT8 if signed else kinds.UINT8)
        self._infos[name] = self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def tensor(self, wanted: str, values: np.ndarray, dtype: Any) -> str:
        """Adds a constant, and returns its name."""
        name = self.free(wanted)
        self._tensors.append(
            self.onnx.numpy_helper.from_array(np.ascontiguousarray(values, dtype=dtype), name)
        )
        return name

    def value(self, wanted: str, shape: tuple[int, ...]) -> str:
        """Returns the name of a new 32-bit value inside a step."""
        name = self.free(wanted)
        self.describe(name, shape, 32, True)
        return name

    def node(self, operator: str, inputs: list[str], output: str, step: Step, **attributes: Any):
        """Adds a node with one output."""
        node = self.onnx.helper.make_node(
            operator, inputs, [output], name=self.free(f"{step.name}_{operator}"), **attributes
        )
        node.doc_string = f"node {step.node}, {step.source}"
        self._nodes.append(node)

    def convolve(
        self,
        step: Step,
        output: str,
        weight: np.ndarray,
        *,
        stride: Sequence[int],
        groups: int,
        padding: Sequence[tuple[int, int]],
    ) -> None:
        """Adds a convolution of a step's first input.

        Args:
            step: the step.
            output: the name of the result.
            weight: int64, [O, I / groups, H, W].
            stride: the strides of both spatial axes.
            groups: the number of channel groups.
            padding: the zeros before and after each spatial axis.

        Raises:
            FormError: the weights need more than 8 bits.
        """
        before, after = zip(*padding, strict=True)
        name = self.tensor(f"{step.name}_weight", as_int8(weight), np.int8)
        self.node(
            "Conv", [self.name(step.inputs[0]), name], output, step, dilations=(1, 1),
            group=groups, kernel_shape=weight.shape[2:], pads=(*before, *after), strides=stride,
        )  # fmt: skip

    def number(self, value: int) -> "onnx.TensorProto":
        """Returns a number as a tensor, which is what RequantShift's attributes hold."""
        return self.onnx.numpy_helper.from_array(np.array(value, dtype=np.int64))

    def finished(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> "onnx.ModelProto":
        """Returns the model."""
        helper = self.onnx.helper
        ends = [self.name(name) for name in (*inputs, *outputs)]
        graph = helper.make_graph(
            self._nodes,
            "integer_program",
            [self._infos[self.name(name)] for name in inputs],
            [self._infos[self.name(name)] for name in outputs],
            initializer=self._tensors,
            value_info=[info for name, info in self._infos.items() if name not in ends],
        )
        model = helper.make_model(
            graph,
            producer_name="photomask",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, metadata(self.program))
        return model


def as_int8(weight: np.ndarray) -> np.ndarray:
    """Returns weights unchanged, after a check that they fit int8.

    Raises:
        FormError: they need more than 8 bits.
    """
    if not Interval(int(weight.min()), int(weight.max())).within(INT8):
        raise FormError(
            f"its weights reach from {weight.min()} to {weight.max()}, but Deeploy's weights are "
            "int8"
        )
    return weight


DEEPLOY = Writers[[DeeployGraph, Step], None]("Deeploy")
"""The table of the functions that add the nodes of a step.

Source: the parsers, bindings and kernels in `Targets/Generic` of Deeploy 0.2.1.
"""
