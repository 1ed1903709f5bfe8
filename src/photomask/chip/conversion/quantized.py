"""What a conversion starts from: a float graph, what its codes mean, and learned integers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from photomask.chip.formats import IntFormat
from photomask.chip.graph import FloatGraph, Node
from photomask.chip.quantizers import Quantizer


@dataclass(frozen=True)
class Scale:
    """What a code means: `(code - zero_point) * scale`, and which codes there are."""

    scale: float
    zero_point: int
    format: IntFormat
    factors: tuple[int, ...] = ()
    """For each channel of the last axis, the power of two that its scale is of `scale`."""

    @property
    def scales(self) -> tuple[float, ...]:
        """Of every channel, or one for all."""
        return tuple(self.scale * 2.0**factor for factor in self.factors) or (self.scale,)

    def code(self, value: float) -> int:
        """Returns the nearest code of a real value, saturated."""
        code = round(max(-1e30, min(1e30, value)) / self.scale) + self.zero_point
        return max(self.format.low, min(self.format.high, code))


@dataclass(frozen=True)
class GivenParameters:
    """The learned integers of a node that are decided already, and what they are in units of."""

    tensors: dict[str, np.ndarray]
    """By role."""
    formats: dict[str, IntFormat]
    unit: np.ndarray
    """Of an accumulator: the real value of one unit, [1] or [channels]."""


class Quantized(Protocol):
    """A float graph and what its edges' codes mean: a `PreparedModel`, or what a program states."""

    @property
    def graph(self) -> FloatGraph:
        """The simplified float graph."""
        ...

    def scale_owner(self, edge: str, /) -> str:
        """Returns the node whose quantizer gives an edge its scale."""
        ...

    def activation_quantizer(self, edge: str, /) -> Quantizer:
        """Returns the quantizer that gives an edge its scale."""
        ...

    def weight_quantizer(self, node: str, /) -> Quantizer:
        """Returns the quantizer of a node's weight."""
        ...

    def constants_of(self, node: Node, /) -> dict[str, torch.Tensor]:
        """Returns a node's constant tensors by role."""
        ...
