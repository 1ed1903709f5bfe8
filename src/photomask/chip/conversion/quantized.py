"""Describes the input of a conversion: a float graph, the scales of its codes, and integers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from photomask.chip.formats import IntFormat
from photomask.chip.graph import FloatGraph, Node
from photomask.chip.quantizers import Quantizer


@dataclass(frozen=True)
class Scale:
    """The scale and the format of codes: a code represents `(code - zero_point) * scale`."""

    scale: float
    zero_point: int
    format: IntFormat
    factors: tuple[int, ...] = ()
    """The exponents of the channels of the last axis: a channel's scale is `scale * 2**factor`."""

    @property
    def scales(self) -> tuple[float, ...]:
        """The scale of each channel, or one scale for all."""
        return tuple(self.scale * 2.0**factor for factor in self.factors) or (self.scale,)

    def code(self, value: float) -> int:
        """Returns the nearest code of a real value, saturated."""
        code = round(max(-1e30, min(1e30, value)) / self.scale) + self.zero_point
        return max(self.format.low, min(self.format.high, code))


@dataclass(frozen=True)
class GivenParameters:
    """The learned integers of a node that are decided already, with their unit."""

    tensors: dict[str, np.ndarray]
    """The integers by role."""
    formats: dict[str, IntFormat]
    """The formats of the integers by role."""
    unit: np.ndarray
    """The real value of one unit of the node's accumulator, [1] or [channels]."""


class Quantized(Protocol):
    """A float graph with the quantizers of its edges: a `PreparedModel`, or one from a program."""

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
