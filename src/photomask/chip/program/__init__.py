"""The integer program: what it is, what is saved of it, and the oracle that defines them."""

from photomask.chip.program.codes import Codes, Inputs
from photomask.chip.program.document import Edge, Step
from photomask.chip.program.links import Links
from photomask.chip.program.oracle import NumpyEngine
from photomask.chip.program.program import IntegerProgram

__all__ = ["Codes", "Edge", "Inputs", "IntegerProgram", "Links", "NumpyEngine", "Step"]
