"""The integer program: its parts, its files, and the oracle that defines its results."""

from photomask.chip.program.codes import Codes, Inputs
from photomask.chip.program.document import Edge, Step
from photomask.chip.program.links import Links
from photomask.chip.program.oracle import NumpyEngine
from photomask.chip.program.program import IntegerProgram

__all__ = ["Codes", "Edge", "Inputs", "IntegerProgram", "Links", "NumpyEngine", "Step"]
