"""The graph of the QDQ form: real values between steps, and codes between quantization nodes."""

from typing import Any

import numpy as np

from photomask.chip.forms.onnx_builder import GraphBuilder
from photomask.chip.forms.writers import Writers
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.errors import FormError

SAME = 1e-6
"""The relative difference below which two scales count as equal, given the precision of float32."""


class QdqGraph(GraphBuilder):
    """A graph of floats in which every activation is quantized and dequantized once.

    The value with the name of an edge is its real value. The value `<edge>/codes` holds its
    integers.

    Attributes:
        divisors: for each accumulator the number that its value was already divided by.
    """

    def __init__(self, program: IntegerProgram):
        """Starts an empty graph."""
        super().__init__(program)
        self.divisors: dict[str, float | np.ndarray] = {}
        self._reals: dict[str, str] = {}
        self._codes: dict[str, str] = {}

    def real(self, edge: str) -> str:
        """Returns the name of the value that holds an edge's real numbers."""
        return self._reals.get(edge, edge)

    def codes(self, edge: str) -> str:
        """Returns the name of the value that holds an activation's codes.

        If the step of the activation is refused, no value has this name.

        Raises:
            FormError: the edge is an accumulator, which has no codes in the QDQ form.
        """
        if edge not in self._codes and self.program.edges[edge].role == "accumulator":
            raise FormError(
                f"the edge {edge!r} is an accumulator, which has no codes in the QDQ form"
            )
        return self._codes.get(edge, edge)

    def edges(self, step: Step) -> list[Edge]:
        """Returns the inputs of a step."""
        return [self.program.edges[name] for name in step.inputs]

    def code_type(self, edge: Edge) -> int:
        """Returns the narrowest type of QuantizeLinear that holds an edge's codes.

        Raises:
            FormError: the codes have more than 16 bits.
        """
        return self.narrowest(edge.format.bits, edge.format.signed)

    def narrowest(self, bits: int, signed: bool) -> int:
        """Returns the narrowest type of DequantizeLinear that has at least this many bits.

        Raises:
            FormError: more than 16 bits are needed.
        """
        for width in (4, 8, 16):
            if bits <= width:
                return getattr(self.onnx.TensorProto, f"{'INT' if signed else 'UINT'}{width}")
        raise FormError(f"it needs {bits}-bit codes, but QuantizeLinear has at most 16 bits")

    def ends(self, edge: Edge) -> tuple[int, int]:
        """Returns the ends at which QuantizeLinear itself saturates the codes of an edge."""
        name = self.onnx.TensorProto.DataType.Name(self.code_type(edge))
        bits = int(name.lstrip("UINT"))
        return (0, (1 << bits) - 1) if name[0] == "U" else (-(1 << bits - 1), (1 << bits - 1) - 1)

    def floats(self, values: Any, step: Step, label: str) -> str:
        """Adds a float32 constant called `<step>/<label>`."""
        return self.tensor(f"{step.name}/{label}", np.asarray(values), self.onnx.TensorProto.FLOAT)

    def integers(self, values: list[int], step: Step, label: str) -> str:
        """Adds an int64 constant called `<step>/<label>`."""
        return self.tensor(f"{step.name}/{label}", np.array(values), self.onnx.TensorProto.INT64)

    def scaled(self, value: str, factor: Any, step: Step) -> str:
        """Returns `value * factor`, or `value` if the factor is 1."""
        if np.all(np.abs(np.asarray(factor) - 1) <= SAME):
            return value
        return self.node("Mul", [value, self.floats(factor, step, "factor")], step, "scaled")

    def quantize(self, value: str, edge: Edge, step: Step, node_label: str = "quantize") -> None:
        """Quantizes a real value to an edge's codes, and dequantizes them."""
        kind = self.code_type(edge)
        inputs = [value, *self._interpretation(edge, kind)]
        name = self.value_name(step, "codes")
        self.node("QuantizeLinear", inputs, step, node_label, output=name)
        self.dequantize(name, edge, kind, step)

    def dequantize(self, codes: str, edge: Edge, kind: int, step: Step) -> None:
        """Converts the codes of an edge to its real value."""
        self._codes[edge.name] = codes
        self.describe(codes, kind, edge)
        output = edge.name
        if edge.name in self.program.inputs:
            output = self._reals[edge.name] = self.value_name(step, "quantized")
        inputs = [codes, *self._interpretation(edge, kind)]
        self.node("DequantizeLinear", inputs, step, "dequantize", output=output)

    def _interpretation(self, edge: Edge, kind: int) -> list[str]:
        """Adds the scale and the zero point of an edge."""
        scale, zero_point = np.array(edge.scale[0]), np.array(edge.zero_point)
        return [
            self.tensor(f"{edge.name}/scale", scale, self.onnx.TensorProto.FLOAT),
            self.tensor(f"{edge.name}/zero_point", zero_point, kind),
        ]

    def finish(self, step: Step, operator: str, inputs: list[str], **attributes: Any) -> None:
        """Adds the node that has the step's name; an activation is quantized after it."""
        edge = self.program.edges[step.output]
        if edge.role == "accumulator":
            self.node(operator, inputs, step, output=edge.name, **attributes)
            return
        value = self.value_name(step, "real")
        self.node(operator, inputs, step, output=value, **attributes)
        self.quantize(value, edge, step)

    def move(self, step: Step, operator: str, constants: list[str], **attributes: Any) -> None:
        """Adds the node of an operator that keeps the codes and therefore also the scales.

        Args:
            step: the step.
            operator: the name of an operator of ai.onnx.
            constants: further inputs, behind the step's own.
            attributes: the attributes of the node.

        Raises:
            FormError: an input has another scale or zero point than the output.
        """
        y = self.program.edges[step.output]
        for x in self.edges(step):
            if (x.scale, x.zero_point) != (y.scale, y.zero_point):
                raise FormError(
                    f"it moves codes of {x.name!r} to an edge with another scale or zero point"
                )
        self.finish(step, operator, [*map(self.real, step.inputs), *constants], **attributes)


QDQ = Writers[[QdqGraph, Step], None]("QDQ")
"""The table of the functions that add a step's nodes; the float operator has the step's name."""
