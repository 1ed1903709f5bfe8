"""The work that an operator asks of a machine for one sample.

A machine has an array of multipliers for products of matrices, and lanes beside it for everything
else.
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
    """The elements of padding before the input."""

    def touched(self, outputs: range, taps: range) -> int:
        """Returns how many distinct input elements a range of outputs reads with a range of taps.

        Elements of padding do not count, because the hardware inserts them as a constant.
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
    """`out[g,o,p] = sum_{i,k} w[g,o,i,k] * x[g,i,p,k]`: one matrix product for each group.

    `x` is the first input. `w` is the constant tensor `weight` or, if there is none, the second
    input. A convolution over one axis, a linear layer and a product of two activations have one row
    of output positions. If a reshape has put several maps of one sample along the batch axis, each
    map is a group, and its weights are read again.
    """

    groups: int
    channels_out: int
    """The output channels of one group; `channels_in` also belongs to one group."""
    channels_in: int
    rows: SpatialAxis
    columns: SpatialAxis

    @property
    def taps(self) -> int:
        """The number of kernel positions."""
        return self.rows.kernel * self.columns.kernel

    @property
    def positions(self) -> int:
        """The number of output positions of one sample."""
        return self.rows.output * self.columns.output

    @property
    def multiply_accumulates(self) -> int:
        """The number of multiply-accumulates of one sample.

        Products with padding count, because the array computes them.
        """
        reduction = self.channels_in * self.taps
        return self.groups * self.channels_out * reduction * self.positions


@dataclass(frozen=True)
class LaneOperations:
    """The operations of one sample by their kind; a lane does one operation per cycle.

    A step without operations leaves its elements where they are.
    """

    multiply_adds: int = 0
    """Products that are each added to a sum."""
    additions: int = 0
    """Elements that are added to a sum, and comparisons."""
    rescalings: int = 0
    """Products that are rounded to fewer bits."""
    lookups: int = 0
    """Reads of a table."""
    moves: int = 0
    """Elements that are written to another place."""

    @property
    def total(self) -> int:
        """The number of all operations."""
        return sum(astuple(self))
