"""Captures a module as a simplified float graph."""

from photomask.chip.graph.capture import capture
from photomask.chip.graph.float_graph import FloatGraph, Node
from photomask.chip.graph.passes import simplify
from photomask.chip.graph.simplification import capture_simplified

__all__ = ["FloatGraph", "Node", "capture", "capture_simplified", "simplify"]
