"""Lowers ATen operators to float operations, with one small function per operator.

Each file registers its functions in the table of `registry`. A new file must be imported and listed
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
