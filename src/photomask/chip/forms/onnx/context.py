"""The graph of the integer form: the integer type of every edge, and conversions between types."""

from typing import TYPE_CHECKING, Any

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.onnx.functions import DOMAIN
from photomask.chip.forms.onnx_builder import GraphBuilder
from photomask.chip.forms.writers import Writers
from photomask.chip.program import Edge, Step

if TYPE_CHECKING:
    import onnx


class IntegerGraph(GraphBuilder):
    """A graph in which every value is an integer.

    Edges of up to 8 bits have the type int8 or uint8. Wider edges have the type int32 or int64,
    whichever holds the edge's interval. These are the types that the integer operators of the ONNX
    standard have in common.
    """

    def edge_type(self, edge: str) -> int:
        """Returns the element type of an edge, given by its name."""
        return self.type_of_edge(self.program.edges[edge])

    def type_of_edge(self, edge: Edge) -> int:
        """Returns the element type of an edge."""
        kinds = self.onnx.TensorProto
        if edge.format.bits <= 8:
            return kinds.INT8 if edge.format.signed else kinds.UINT8
        return self.type_of(edge.interval)

    def type_of(self, interval: Interval) -> int:
        """Returns int32 if it holds all integers of `interval`, else int64."""
        kinds = self.onnx.TensorProto
        return kinds.INT32 if interval.within(Interval(-(1 << 31), (1 << 31) - 1)) else kinds.INT64

    def narrowest(self, values: np.ndarray) -> int:
        """Returns the narrowest of int8, uint8, int32 and int64 that holds all values."""
        kinds = self.onnx.TensorProto
        interval = Interval(int(values.min()), int(values.max()))
        if interval.within(Interval(-128, 127)):
            return kinds.INT8
        return kinds.UINT8 if interval.within(Interval(0, 255)) else self.type_of(interval)

    def interval(self, step: Step) -> Interval:
        """Returns the interval of a step's output."""
        return self.program.edges[step.output].interval

    def intervals(self, step: Step) -> list[Interval]:
        """Returns the intervals of a step's inputs."""
        return [self.program.edges[name].interval for name in step.inputs]

    def operand(self, edge: str, element_type: int, step: Step) -> str:
        """Returns an input edge as a value of `element_type`, converted if its type differs."""
        if self.edge_type(edge) == element_type:
            return edge
        return self.node("Cast", [edge], step, "input_cast", to=element_type)

    def centred(self, edge: str, zero_point: int, element_type: int, step: Step) -> str:
        """Returns `edge - zero_point` as `element_type`."""
        value = self.operand(edge, element_type, step)
        if zero_point == 0:
            return value
        constant = self.scalar(zero_point, element_type, step, "zero_point")
        return self.node("Sub", [value, constant], step, "centred")

    def scalar(self, value: int, element_type: int, step: Step, label: str) -> str:
        """Adds a constant number called `<step>/<label>`."""
        return self.tensor(f"{step.name}/{label}", np.array(value), element_type)

    def vector(self, values: list[int], step: Step, label: str) -> str:
        """Adds constant int64 numbers, such as axes or sizes, called `<step>/<label>`."""
        return self.tensor(
            f"{step.name}/{label}", np.array(values, dtype=np.int64), self.onnx.TensorProto.INT64
        )

    def call(
        self,
        function: "onnx.FunctionProto",
        inputs: list[str],
        step: Step,
        label: str = "",
        *,
        output: str = "",
        **attributes: int,
    ) -> str:
        """Adds a node that applies one of the model's functions."""
        self.function(function)
        return self.node(
            function.name, inputs, step, label, output=output, domain=DOMAIN, **attributes
        )

    def finish(
        self,
        step: Step,
        element_type: int,
        operator: "str | onnx.FunctionProto",
        inputs: list[str],
        **attributes: Any,
    ) -> None:
        """Adds the node that has the step's name; its result becomes the step's edge.

        Args:
            step: the step.
            element_type: the element type that the node computes. It is converted to the type of
                the edge.
            operator: the name of an operator of ai.onnx, or a function of the model.
            inputs: the names of the input values.
            attributes: the attributes of the node.
        """
        wanted, output = self.edge_type(step.output), step.output
        if element_type != wanted:
            output = self.value_name(step, "wide")
        if isinstance(operator, str):
            self.node(operator, inputs, step, output=output, **attributes)
        else:
            self.call(operator, inputs, step, output=output, **attributes)
        if element_type != wanted:
            self.node("Cast", [output], step, "output_cast", output=step.output, to=wanted)


ONNX = Writers[[IntegerGraph, Step], None]("integer ONNX")
"""The table of the functions that add the nodes of a step; the last node has the step's name."""
