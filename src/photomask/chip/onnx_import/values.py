"""Defines the values that tensors of an ONNX graph have while it is imported."""

from dataclasses import dataclass, replace

import numpy as np

from photomask.chip.formats import IntFormat


class CannotImport(Exception):
    """Raised for a node that has no integer form; the message says why."""


@dataclass(frozen=True)
class Real:
    """Real numbers that a node of the float graph computes.

    Attributes:
        node: the name of the node.
        exact: True if codes represent the numbers exactly, as after a DequantizeLinear, also where
            the numbers were then moved. False if the numbers are not rounded yet.
    """

    node: str
    exact: bool = False


@dataclass(frozen=True)
class Codes:
    """The integers between the QuantizeLinear and the DequantizeLinear of a float node."""

    node: str


@dataclass(frozen=True)
class Positions:
    """Indices into a table, which are the codes of a quantized node plus a constant.

    Attributes:
        node: the name of the node.
        offset: the integer that was added to each code.
    """

    node: str
    offset: int = 0


@dataclass(frozen=True)
class Chosen:
    """Codes that were looked up in a constant table by the codes of a quantized node.

    Attributes:
        positions: the indices of the entries.
        table: the codes of the table, [entries].
    """

    positions: Positions
    table: "Integers"


@dataclass(frozen=True)
class Floats:
    """Constant real numbers."""

    array: np.ndarray


@dataclass(frozen=True)
class Integers:
    """Constant integers: codes, or numbers that describe shapes.

    Attributes:
        array: the values of the file.
        kind: the name of the element type.
    """

    array: np.ndarray
    kind: str


@dataclass(frozen=True)
class Dequantized:
    """A constant `(codes - zero_point) * scale`.

    Attributes:
        codes: the codes, int64.
        scale: the scales, float32, [] or [channels].
        zero_point: the zero points, int64, in the shape of `scale`.
        axis: the axis of the channels; None for one scale.
        format: the format of the codes.
        had_blocks: True if the file has scales per block, so that `blocks.in_units_of` may choose
            the unit.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None
    format: IntFormat
    had_blocks: bool = False

    def transposed(self, order: tuple[int, ...]) -> "Dequantized":
        """Returns the constant with its axes in another order."""
        axis = None if self.axis is None else order.index(self.axis)
        return replace(self, codes=self.codes.transpose(order), axis=axis)

    def centred(self) -> np.ndarray:
        """Returns `codes - zero_point`."""
        return self.codes - self._aligned(self.zero_point)

    def real(self) -> np.ndarray:
        """Returns the real numbers, float64."""
        return self.centred() * self._aligned(self.scale.astype(np.float64))

    def _aligned(self, parameter: np.ndarray) -> np.ndarray:
        if self.axis is None:
            return parameter
        return parameter.reshape([-1 if a == self.axis else 1 for a in range(self.codes.ndim)])


@dataclass(frozen=True)
class Unknown:
    """The output of a node that could not be imported; its readers are not imported either."""


Value = Real | Codes | Positions | Chosen | Floats | Integers | Dequantized | Unknown


def elements_of(value: Value) -> int:
    """Returns the number of elements of a constant, or 0 for other values."""
    if isinstance(value, Dequantized):
        return value.codes.size
    return value.array.size if isinstance(value, Floats | Integers) else 0
