"""What an operator asks of a machine for one sample: products on the array, or work of the lanes.

A machine has an array of multipliers, for products of matrices, and lanes beside it, for all else.
"""

from dataclasses import astuple, dataclass

import numpy as np


@dataclass(frozen=True)
class SpatialAxis:
    """One spatial axis: output position `p` and tap `k` read `p*stride + k*dilation - padding`."""

    input: int
    output: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    """Elements before the input."""

    def touched(self, outputs: range, taps: range) -> int:
        """Returns how many different elements of the input some outputs read by some taps.

        Padding is not among them: it is a constant that the hardware inserts.
        """
        positions = (
            np.arange(outputs.start, outputs.stop)[:, None] * self.stride
            + np.arange(taps.start, taps.stop)[None, :] * self.dilation
            - self.padding
        )
        inside = positions[(positions >= 0) & (positions < self.input)]
        return inside.size if len(taps) == 1 else len(np.unique(inside))


@dataclass(frozen=True)
class MatrixProduct:
    """`out[g,o,p] = sum_{i,k} w[g,o,i,k] * x[g,i,p,k]`: as many matrix products as groups.

    `x` is the first input. `w` is the constant tensor `weight`, or else the second input. A
    convolution over one axis, a linear layer and a product of two activations have one row of
    output positions. Where a reshape has put several maps of one sample along the batch axis, each
    is a group, with the weights read again.
    """

    groups: int
    channels_out: int
    """Of one group, as is `channels_in`."""
    channels_in: int
    rows: SpatialAxis
    columns: SpatialAxis

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return self.rows.kernel * self.columns.kernel

    @property
    def positions(self) -> int:
        """Output positions of one sample."""
        return self.rows.output * self.columns.output

    @property
    def multiply_accumulates(self) -> int:
        """Of one sample; products with padding are computed too."""
        reduction = self.channels_in * self.taps
        return self.groups * self.channels_out * reduction * self.positions


@dataclass(frozen=True)
class LaneOperations:
    """Operations of one sample by their kind; a lane does one of them a cycle.

    A step without any leaves its elements where they are.
    """

    multiply_adds: int = 0
    """Products, each added to a sum."""
    additions: int = 0
    """Elements taken into a sum, and comparisons."""
    rescalings: int = 0
    """Products that are rounded to fewer bits."""
    lookups: int = 0
    """Reads of a table."""
    moves: int = 0
    """Elements written elsewhere."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(astuple(self))
