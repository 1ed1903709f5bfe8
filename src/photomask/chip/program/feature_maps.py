"""Finds the edges of a program that are feature maps, which every form stores in the same order."""

from photomask.chip.operators import Family
from photomask.chip.program.program import IntegerProgram

RANKS = range(3, 6)
"""The possible numbers of axes: batch, channels and one to three spatial axes."""


def feature_maps(program: IntegerProgram) -> set[str]:
    """Returns the edges whose axes are batch, channels and one to three spatial axes.

    Operators of the family `MAP` read and write feature maps. Operators that keep the meaning of
    axes connect feature maps with each other.
    """
    found: set[str] = set()
    before = -1
    while len(found) > before:
        before = len(found)
        for step in program.steps:
            edges = (*step.inputs, step.output)
            members = {name for name in edges if len(program.edges[name].shape) in RANKS}
            family = step.operator.family
            if family is Family.MAP or (family.keeps_axes and found & members):
                found |= members
    return found
