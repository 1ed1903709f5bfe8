"""From a module to a simplified float graph."""

from photomask.chip.graph.capture import capture
from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.passes import simplify

__all__ = ["FloatGraph", "Node", "capture", "simplify"]
