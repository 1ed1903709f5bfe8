"""Which edges of a program are feature maps; every form lays these out alike."""

from photomask.chip.operators import Family
from photomask.chip.program.program import IntegerProgram

RANKS = range(3, 6)
"""Batch, channels and one to three spatial axes."""


def feature_maps(program: IntegerProgram) -> set[str]:
    """Returns the edges whose axes are batch, channels and one to three spatial axes.

    These are what operators of the family `MAP` read or write, and what operators that keep the
    meaning of axes connect to such an edge.
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
