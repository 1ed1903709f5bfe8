"""Which edges of a program are feature maps; every form lays these out alike."""

from photomask.chip.program.program import IntegerProgram

SPATIAL_KINDS = frozenset({"convolution", "max_pool", "average_pool"})
MIXING_KINDS = frozenset({"embedding", "linear", "matmul", "normalize", "permute", "reshape"})
"""Operators behind which the axes may mean something else."""
RANKS = range(3, 6)
"""Batch, channels and one to three spatial axes."""


def feature_maps(program: IntegerProgram) -> set[str]:
    """Returns the edges whose axes are batch, channels and one to three spatial axes.

    These are what a convolution or a pooling reads or writes, and what element-wise operators
    connect to such an edge.
    """
    found: set[str] = set()
    before = -1
    while len(found) > before:
        before = len(found)
        for step in program.steps:
            edges = (*step.inputs, step.output)
            members = {name for name in edges if len(program.edges[name].shape) in RANKS}
            joined = step.operator.kind not in MIXING_KINDS and found & members
            if step.operator.kind in SPATIAL_KINDS or joined:
                found |= members
    return found
