"""The graph of the QONNX form: real values, the scale of each, and Quant nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from photomask.chip.formats import IntFormat
from photomask.chip.forms.onnx_builder import GraphBuilder, described
from photomask.chip.forms.writers import Writers
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.chip.target import Rounding
from photomask.errors import FormError

DOMAIN = "qonnx.custom_op.general"
ROUNDING_MODES = {
    Rounding.HALF_EVEN: "ROUND",
    Rounding.HALF_AWAY: "HALF_UP",
    Rounding.TRUNCATE: "FLOOR",
}
"""The rounding modes of QONNX.

QONNX's `HALF_UP` rounds ties away from zero. Rounding half up is written as the floor of the value
plus half a step.
"""
NEGLIGIBLE = 2.0**-10
"""The relative difference of scales that needs no multiplication: an eighth of an 8-bit code."""


class QonnxGraph(GraphBuilder):
    """A graph of float32 values, each of which stands for `(code - zero point) * unit`.

    Attributes:
        inputs: the names of the model's real inputs, by the edge that they are quantized to.
        units: the real value of one unit of each edge. It broadcasts against a sample with its
            batch axis. It is the scale of the edge, unless the step of an accumulator sets another
            one.
    """

    def __init__(self, program: IntegerProgram):
        """Starts an empty graph."""
        super().__init__(program)
        self.inputs: dict[str, str] = {}
        self.units = {name: np.array(edge.scale[0]) for name, edge in program.edges.items()}

    def dimensions(self, edge: Edge) -> list[int | str]:
        """Returns an edge's shape for one sample, because tools for QONNX need every size."""
        return list(edge.shape)

    def edge(self, name: str) -> Edge:
        """Returns an edge of the program."""
        return self.program.edges[name]

    def unit(self, name: str) -> float:
        """Returns the real value of one unit of an edge.

        Raises:
            FormError: the value differs by channel.
        """
        unit = self.units[name]
        if not _is_one(unit):
            raise FormError(f"the channels of {name!r} have different scales")
        return float(unit.reshape(-1)[0])

    def scale(self, name: str) -> float:
        """Returns the scale of an activation."""
        return self.edge(name).scale[0]

    def quantized_input(self, edge: Edge) -> None:
        """Adds a real input and the Quant node behind it."""
        source = Step.model_construct(
            name=edge.name, node=edge.name, source="an input", output=edge.name, inputs=()
        )
        real = self.value_name(source, "real")
        self.inputs[edge.name] = real
        self.describe(real, self.onnx.TensorProto.FLOAT, edge, "a real input")
        self.quant(source, real, edge, "ROUND")

    def quant(self, step: Step, value: str, edge: Edge, rounding_mode: str) -> None:
        """Adds the Quant node whose output is an activation edge."""
        narrow = edge.format.signed and edge.low == edge.format.low + 1
        parameters = [
            self.real(step, "scale", edge.scale[0]),
            self.real(step, "zero_point", edge.zero_point),
            self.real(step, "bits", edge.format.bits),
        ]
        self.node(
            "Quant", [value, *parameters], step, output=edge.name, domain=DOMAIN,
            signed=int(edge.format.signed), narrow=int(narrow), rounding_mode=rounding_mode,
        )  # fmt: skip
        self.made(edge, np.array(edge.scale[0]))

    def quantized_constant(
        self, step: Step, label: str, codes: np.ndarray, scale: np.ndarray, format: IntFormat
    ) -> str:
        """Adds real numbers `codes * scale` with a Quant or BipolarQuant node behind them."""
        value = self.real(step, label, codes * scale)
        factor = self.real(step, f"{label}_scale", scale)
        if np.all(np.abs(codes) == 1):
            return self.node(
                "BipolarQuant", [value, factor], step, f"{label}_quantized", domain=DOMAIN
            )
        parameters = [
            factor,
            self.real(step, f"{label}_zero_point", 0.0),
            self.real(step, f"{label}_bits", format.bits),
        ]
        narrow = format.signed and int(codes.min()) > format.low
        return self.node(
            "Quant", [value, *parameters], step, f"{label}_quantized", domain=DOMAIN,
            signed=int(format.signed), narrow=int(narrow), rounding_mode="ROUND",
        )  # fmt: skip

    def real(self, step: Step, label: str, values: np.ndarray | float) -> str:
        """Adds constant real numbers called `<step>/<label>`."""
        return self.tensor(f"{step.name}/{label}", np.asarray(values), self.onnx.TensorProto.FLOAT)

    def whole(self, step: Step, label: str, values: list[int]) -> str:
        """Adds constant int64 numbers, such as axes or sizes, called `<step>/<label>`."""
        return self.tensor(
            f"{step.name}/{label}", np.array(values, dtype=np.int64), self.onnx.TensorProto.INT64
        )

    def scaled(self, step: Step, value: str, factor: np.ndarray, label: str = "scaled") -> str:
        """Returns `value * factor`, or the value itself if the factor is 1 up to rounding."""
        if np.all(np.abs(factor - 1) < NEGLIGIBLE):
            return value
        return self.node("Mul", [value, self.real(step, f"{label}_factor", factor)], step, label)

    def centred(self, step: Step, position: int, zero_point: int, label: str = "centred") -> str:
        """Returns an input as a real number that is 0 for the code `zero_point`."""
        edge = self.edge(step.inputs[position])
        unit = self.units[edge.name]
        shift = (edge.zero_point - zero_point) * (unit.reshape(-1)[0] if _is_one(unit) else unit)
        if not np.any(shift):
            return edge.name
        return self.node("Add", [edge.name, self.real(step, f"{label}_shift", shift)], step, label)

    def finish(
        self, step: Step, unit: np.ndarray | float, operator: str, inputs: list[str],
        **attributes: Any,
    ) -> None:  # fmt: skip
        """Adds the node whose output is the step's edge."""
        self.node(operator, inputs, step, output=step.output, **attributes)
        self.made(self.edge(step.output), np.asarray(unit, dtype=np.float64))

    def made(self, edge: Edge, unit: np.ndarray) -> None:
        """States the scale, the type and the shape of an edge."""
        self.units[edge.name] = unit
        self.describe(edge.name, self.onnx.TensorProto.FLOAT, edge, f"real; {described(edge)}")

    def move(self, step: Step, operator: str, constants: list[str], **attributes: Any) -> None:
        """Adds the node of an operator that keeps the scale of its input.

        Args:
            step: the step, which has one input.
            operator: the name of an operator of ai.onnx.
            constants: further inputs, behind the step's own.
            attributes: the attributes of the node.
        """
        (name,) = step.inputs
        self.finish(step, self.units[name], operator, [name, *constants], **attributes)

    def padded(
        self, step: Step, amounts: Sequence[tuple[int, int]], code: int, value: str = ""
    ) -> str:
        """Returns the first input of a step, padded with a code.

        Args:
            step: the step.
            amounts: the elements before and after each axis; negative amounts crop.
            code: the code that the padding stands for.
            value: the input after `code` was subtracted from it; "" for the input itself.
        """
        x = self.edge(step.inputs[0])
        zero_point = x.zero_point
        if value and value != x.name:
            zero_point = code
        sides = [*(before for before, _ in amounts), *(after for _, after in amounts)]
        filler = self.real(step, "filler", (code - zero_point) * self.unit(x.name))
        inputs = [value or x.name, self.whole(step, "amounts", sides), filler]
        return self.node("Pad", inputs, step, "padded")


def _is_one(unit: np.ndarray) -> bool:
    """Tells whether all channels have the same unit."""
    return bool(np.all(unit == unit.reshape(-1)[0]))


QONNX = Writers[[QonnxGraph, Step], None]("QONNX")
"""The table of the functions that add the nodes of a step; the last node has the step's name."""
