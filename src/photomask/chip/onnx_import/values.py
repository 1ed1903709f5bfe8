"""What the tensors of an ONNX graph are while it is being imported."""

from dataclasses import dataclass, replace

import numpy as np

from photomask.chip.formats import IntFormat


class CannotImport(Exception):
    """A node that has no integer form; the message says why."""


@dataclass(frozen=True)
class Real:
    """Real numbers that a node of the float graph computes.

    Attributes:
        node: its name.
        exact: True behind a DequantizeLinear, and where such values were only moved: the numbers
            are those that the node's codes stand for. False: they are not rounded yet.
    """

    node: str
    exact: bool = False


@dataclass(frozen=True)
class Codes:
    """The integers of a quantized node: what lies between QuantizeLinear and DequantizeLinear."""

    node: str


@dataclass(frozen=True)
class Positions:
    """Where a table is read: the codes of a quantized node, moved by a constant.

    Attributes:
        node: its name.
        offset: what was added to each code.
    """

    node: str
    offset: int = 0


@dataclass(frozen=True)
class Chosen:
    """Codes that the codes of a quantized node choose from a table of constants.

    Attributes:
        positions: which entry.
        table: codes [entries].
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
        array: values, as the file has them.
        kind: name of the element type.
    """

    array: np.ndarray
    kind: str


@dataclass(frozen=True)
class Dequantized:
    """Constant `(codes - zero_point) * scale`.

    Attributes:
        codes: int64.
        scale: float32, [] or [channels].
        zero_point: int64, the shape of `scale`.
        axis: of the channels; None for one scale.
        format: of the codes.
        had_blocks: the file has a scale for each block; `blocks.in_units_of` may choose the unit.
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
    """What a node computes that could not be imported; whoever reads it is not imported either."""


Value = Real | Codes | Positions | Chosen | Floats | Integers | Dequantized | Unknown


def elements_of(value: Value) -> int:
    """Returns how many numbers a constant holds; 0 for what is none."""
    if isinstance(value, Dequantized):
        return value.codes.size
    return value.array.size if isinstance(value, Floats | Integers) else 0
