"""One node of an ONNX graph with what it reads, as the functions that import it see it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from photomask.chip.graph import Node
from photomask.chip.graph.operations import Clamp, Operation
from photomask.chip.onnx_import.graph import GraphBuilder
from photomask.chip.onnx_import.tensors import TensorReader
from photomask.chip.onnx_import.values import (
    CannotImport,
    Dequantized,
    Floats,
    Integers,
    Real,
    Value,
)

LARGEST_NUMBER = 1 << 31
MOST_NUMBERS = 1 << 16
"""In an attribute, or in a constant that describes a shape."""


@dataclass(frozen=True)
class Call:
    """A node of the file.

    Attributes:
        node: the `NodeProto`.
        values: what it reads; None for an optional input that is absent.
        builder: the float graph in the making.
        reader: decodes tensors in attributes.
        opset: version of ONNX's own operators.
    """

    node: Any
    values: tuple[Value | None, ...]
    builder: GraphBuilder
    reader: TensorReader
    opset: int

    def name(self, position: int) -> str:
        """Returns the name of an input."""
        if position >= len(self.node.input):
            raise CannotImport(f"its input {position} is missing")
        return self.node.input[position]

    @property
    def output(self) -> str:
        """Name of the first output."""
        return self.node.output[0]

    @property
    def rank(self) -> int:
        """Axes of the first input that is an activation."""
        for value in self.values:
            if isinstance(value, Real):
                return len(self.builder.shape(value))
        raise CannotImport("none of its inputs is an activation")

    def value(self, position: int) -> Value | None:
        """Returns an input; None if it is absent."""
        return self.values[position] if position < len(self.values) else None

    def real(self, position: int = 0) -> Real:
        """Returns an activation, which may not be quantized yet."""
        value = self.value(position)
        if not isinstance(value, Real):
            raise CannotImport(f"its input {position} is no activation")
        return value

    def quantized(self, position: int = 0) -> str:
        """Returns the node of a quantized activation."""
        return self.builder.quantized(self.real(position), self.name(position))

    def operand(self, position: int, rank: int) -> str:
        """Returns the node of a quantized activation or constant that broadcasts to `rank`."""
        value = self.value(position)
        if value is None:
            raise CannotImport(f"its input {position} is missing")
        return self.builder.operand(value, self.name(position), rank)

    def pending(self, position: int = 0) -> Node | None:
        """Returns the node behind an input if this call may still change what it computes.

        That is so while nothing has quantized it and nobody else reads it.
        """
        value = self.value(position)
        if not isinstance(value, Real) or value.exact:
            return None
        once = self.builder.is_only_read_once(self.name(position))
        return self.builder.nodes[value.node] if once else None

    def emit(
        self,
        operation: Operation,
        inputs: Sequence[str],
        constants: dict[str, np.ndarray] | None = None,
        shape: tuple[int, ...] | None = None,
        tensor: str | None = None,
        clamp: Clamp | None = None,
    ) -> Real:
        """Adds a node that computes the first output, or a `tensor` on the way to it."""
        source = self.node.name or self.output
        found = self.builder.emit(
            tensor or self.output, source, operation, inputs, constants, shape
        )
        if clamp is not None:
            self.builder.nodes[found.node] = replace(self.builder.nodes[found.node], clamp=clamp)
        return found

    def move(
        self,
        operation: Operation,
        shape: tuple[int, ...] | None = None,
        tensor: str | None = None,
    ) -> Real:
        """Adds a node that moves or selects values of the first input, quantized before or after.

        Rounding to codes is monotonic and element by element, so it can be done before as well as
        after moving, the maximum and clamping.
        """
        value = self.real()
        if self.pending() is None:
            self.quantized()
        found = self.emit(operation, [value.node], shape=shape, tensor=tensor)
        return Real(found.node, exact=value.exact)

    def attribute(self, name: str, kind: str, default: Any) -> Any:
        """Returns an attribute.

        Raises:
            CannotImport: it is there twice or has another type.
        """
        found = [attribute for attribute in self.node.attribute if attribute.name == name]
        if not found:
            return default
        field = {"INT": "i", "FLOAT": "f", "STRING": "s", "INTS": "ints", "TENSOR": "t"}[kind]
        types = type(found[0]).AttributeType
        if len(found) > 1 or found[0].type != types.Value(kind) or found[0].ref_attr_name:
            raise CannotImport(f"its attribute {name!r} is there twice or is no {kind}")
        return getattr(found[0], field)

    def integer(self, name: str, default: int) -> int:
        """Returns an integer attribute."""
        return _small(self.attribute(name, "INT", default), name)

    def flag(self, name: str, default: int) -> bool:
        """Returns an integer attribute that is 0 or 1; others mean what nobody has defined."""
        value = self.integer(name, default)
        if value not in (0, 1):
            raise CannotImport(f"its attribute {name!r} is {value}, neither 0 nor 1")
        return bool(value)

    def number(self, name: str, default: float) -> float:
        """Returns a real attribute."""
        value = float(self.attribute(name, "FLOAT", default))
        if not math.isfinite(value):
            raise CannotImport(f"its attribute {name!r} is {value}")
        return value

    def word(self, name: str, default: str) -> str:
        """Returns a text attribute."""
        return self.attribute(name, "STRING", default.encode()).decode("ascii", "replace")

    def integers(self, name: str, default: Sequence[int] | None) -> tuple[int, ...] | None:
        """Returns an attribute of several integers."""
        found = self.attribute(name, "INTS", default)
        return None if found is None else _all_small(found, name)

    def shape_numbers(self, position: int, name: str) -> tuple[int, ...] | None:
        """Returns integers that are a constant input in new files and an attribute in old ones."""
        value = self.value(position)
        if value is None:
            return self.integers(name, None)
        if not isinstance(value, Integers):
            raise CannotImport(f"its {name} are not constant")
        if value.array.ndim > 1:
            raise CannotImport(f"its {name} have the shape {value.array.shape}, and are no list")
        return _all_small(value.array.reshape(-1), name)

    def constant_number(self, position: int, rank: int | None = None) -> float | None:
        """Returns an input that is one constant real number, as float32; None if it is none.

        Args:
            position: of the input.
            rank: axes of what it broadcasts against; None where it does not.

        Raises:
            CannotImport: it has more axes than that, so that the batch would not be the first.
        """
        value = self.value(position)
        if isinstance(value, Dequantized) and value.codes.size == 1:
            array = value.real()
        elif isinstance(value, Floats) and value.array.size == 1:
            array = value.array
        else:
            return None
        if rank is not None and array.ndim > rank:
            raise CannotImport(f"its constant of shape {array.shape} adds axes before the batch")
        with np.errstate(over="ignore"):
            return float(array.reshape(()).astype(np.float32))

    def axes(self, axes: Sequence[int], rank: int | None = None) -> tuple[int, ...]:
        """Returns axes counted from the front, each at most once."""
        found = tuple(self.axis(axis, rank) for axis in axes)
        if len(set(found)) != len(found):
            raise CannotImport(f"its axes {list(axes)[:8]} name one twice")
        return found

    def axis(self, axis: int, rank: int | None = None) -> int:
        """Returns an axis counted from the front."""
        rank = self.rank if rank is None else rank
        if not -rank <= axis < rank:
            raise CannotImport(f"axis {axis} of {rank}")
        return axis % rank


def _all_small(numbers: Any, name: str) -> tuple[int, ...]:
    if len(numbers) > MOST_NUMBERS:
        raise CannotImport(f"its {name} are {len(numbers)} numbers")
    if isinstance(numbers, np.ndarray) and numbers.dtype.kind in "iu":
        return tuple(numbers.clip(*_limits(numbers.dtype)).tolist())
    return tuple(_small(number, name) for number in numbers)


def _limits(dtype: np.dtype) -> tuple[int, int]:
    held = np.iinfo(dtype)
    return max(-LARGEST_NUMBER, int(held.min)), min(LARGEST_NUMBER, int(held.max))


def _small(number: Any, name: str) -> int:
    """Keeps sizes and positions in a range where no sum of them overflows.

    Larger ones, which files use for "to the end", mean the same as the largest.
    """
    if not isinstance(number, int | np.integer):
        raise CannotImport(f"its {name} hold {number!r}, which is no integer")
    return max(-LARGEST_NUMBER, min(LARGEST_NUMBER, int(number)))
