"""The memory of an edge in C: its type, and the order of its elements."""

import math
from dataclasses import dataclass

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.c.text import c_type, numpy_type, size_of
from photomask.chip.program import Edge, IntegerProgram
from photomask.chip.program.feature_maps import feature_maps


@dataclass(frozen=True)
class Tensor:
    """The memory of an edge."""

    ctype: str
    """The narrowest C type that holds the edge's format."""
    shape: tuple[int, ...]
    """The shape in the edge's own axes."""
    order: tuple[int, ...]
    """The edge's own axes, from the slowest to the fastest in memory."""
    interval: Interval
    """The interval of the values that can occur."""

    @classmethod
    def of(cls, edge: Edge, channels_last: bool) -> "Tensor":
        """Returns the memory of an edge."""
        rank = len(edge.shape)
        order = (0, *range(2, rank), 1) if channels_last else tuple(range(rank))
        return cls(c_type(edge.format.interval), edge.shape, order, edge.interval)

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return self.elements * size_of(self.ctype)

    @property
    def strides(self) -> tuple[int, ...]:
        """The distance of adjacent elements, by own axis; 0 along an axis of one element."""
        strides, step = [0] * len(self.shape), 1
        for axis in reversed(self.order):
            strides[axis] = step if self.shape[axis] > 1 else 0
            step *= self.shape[axis]
        return tuple(strides)

    @property
    def order_name(self) -> str:
        """The name of the order: NHWC, NWC or row major."""
        rank = len(self.shape)
        if self.order == tuple(range(rank)):
            return "row major"
        return {3: "NWC", 4: "NHWC"}[rank]

    @property
    def description(self) -> str:
        """The shape and the order of the tensor, for a comment."""
        return f"[{', '.join(map(str, self.shape))}] {self.order_name}"

    def laid_out(self, codes: np.ndarray) -> np.ndarray:
        """Returns integers of this shape in the type and order that C reads."""
        return np.ascontiguousarray(codes.transpose(self.order), numpy_type(self.ctype))

    def own_axes(self, flat: np.ndarray) -> np.ndarray:
        """Returns the int64 integers of this shape whose elements lie in `flat` in C's order."""
        ordered = flat.reshape([self.shape[axis] for axis in self.order])
        return ordered.transpose(np.argsort(self.order)).astype(np.int64)

    def in_order(self, by_axis: tuple[int, ...]) -> tuple[int, ...]:
        """Returns numbers by own axis, sorted from the slowest axis to the fastest."""
        return tuple(by_axis[axis] for axis in self.order)


def tensors_of(program: IntegerProgram) -> dict[str, Tensor]:
    """Returns the memory of every edge: channels last for feature maps, row major for all others.

    If the channels are last, the operands of one output's products are adjacent in memory.
    """
    maps = feature_maps(program)
    return {name: Tensor.of(edge, name in maps) for name, edge in program.edges.items()}
