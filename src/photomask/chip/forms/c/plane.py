"""The rows and columns of a convolution: which input each output reads."""

from dataclasses import dataclass

import numpy as np

from photomask.chip.forms.c.tensors import Tensor
from photomask.chip.forms.c.text import affine
from photomask.chip.operators import Convolution


@dataclass(frozen=True)
class Plane:
    """A convolution over rows and columns; one with a single spatial axis has one row."""

    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    out_height: int
    out_width: int
    groups: int
    padding_value: int
    """The code that is read outside the input."""

    @classmethod
    def of(cls, operator: Convolution, weight: np.ndarray, x: Tensor, y: Tensor) -> "Plane":
        """Returns the convolution that computes `y` from `x`."""

        def two(values: tuple[int, ...], other: int) -> tuple[int, int]:
            return (values[0], values[1]) if len(values) == 2 else (other, values[0])

        height, width = two(x.shape[2:], 1)
        out_height, out_width = two(y.shape[2:], 1)
        return cls(
            height,
            width,
            two(weight.shape[2:], 1),
            two(operator.stride, 1),
            two(operator.dilation, 1),
            two(tuple(before for before, _ in operator.padding), 0),
            out_height,
            out_width,
            operator.groups,
            operator.padding_value,
        )

    @classmethod
    def of_rows(cls, rows: int) -> "Plane":
        """Returns the plane of a linear layer, which has a column for each row of its input."""
        return cls(1, rows, (1, 1), (1, 1), (1, 1), (0, 0), 1, rows, groups=1, padding_value=0)

    def row(self) -> str:
        """Returns the input row that output `row` reads at kernel row `i`."""
        terms = [("row", self.stride[0]), ("i", self.dilation[0] if self.kernel[0] > 1 else 0)]
        return affine(*terms, constant=-self.before[0])

    def column(self) -> str:
        """Returns the input column that output `column` reads at kernel column `j`."""
        terms = [("column", self.stride[1]), ("j", self.dilation[1] if self.kernel[1] > 1 else 0)]
        return affine(*terms, constant=-self.before[1])

    def outside(self) -> str:
        """Returns the condition under which row `h` or column `w` is padding, or "" if none is."""
        rows, columns = self._reach(0, self.out_height), self._reach(1, self.out_width)
        tests = []
        for name, (first, last), size in (("h", rows, self.height), ("w", columns, self.width)):
            tests += [f"{name} < 0"] if first < 0 else []
            tests += [f"{name} >= {size}"] if last >= size else []
        return " || ".join(tests)

    def _reach(self, axis: int, count: int) -> tuple[int, int]:
        """Returns the first and the last row (or column) of the input that `count` outputs read."""
        last = (count - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis]
        return -self.before[axis], last - self.before[axis]
