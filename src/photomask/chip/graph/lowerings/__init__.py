"""ATen operators → float operations, one small function each.

Each file registers its functions in the one table of `registry`. A file takes part by being named
here.
"""

from photomask.chip.graph.lowerings import (
    attending,
    elementwise,
    joining,
    masking,
    pointwise,
    products,
    rearranging,
    reducing,
)
from photomask.chip.graph.lowerings.registry import LOWERINGS, registered

FILES = (attending, elementwise, joining, masking, pointwise, products, rearranging, reducing)
"""The files that register lowerings."""

__all__ = ["FILES", "LOWERINGS", "registered"]
