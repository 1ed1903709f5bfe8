"""Gives the functions that import an ONNX node access to its inputs and attributes."""

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
"""The most numbers in an attribute, or in a constant that describes a shape."""


@dataclass(frozen=True)
class Call:
    """A node of the file that is being imported.

    Attributes:
        node: the `NodeProto`.
        values: the values of the inputs; None for an optional input that is absent.
        builder: the builder of the float graph.
        reader: the reader of tensors in attributes.
        opset: the version of ONNX's own operators.
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
        """The name of the first output."""
        return self.node.output[0]

    @property
    def rank(self) -> int:
        """The number of axes of the first input that is an activation."""
        for value in self.values:
            if isinstance(value, Real):
                return len(self.builder.shape(value))
        raise CannotImport("none of its inputs is an activation")

    def value(self, position: int) -> Value | None:
        """Returns the value of an input, or None if it is absent."""
        return self.values[position] if position < len(self.values) else None

    def real(self, position: int = 0) -> Real:
        """Returns an activation, which may not be quantized yet."""
        value = self.value(position)
        if not isinstance(value, Real):
            raise CannotImport(f"its input {position} must be an activation")
        return value

    def quantized(self, position: int = 0) -> str:
        """Returns the float node of a quantized activation."""
        return self.builder.quantized(self.real(position), self.name(position))

    def operand(self, position: int, rank: int) -> str:
        """Returns the float node of a quantized activation or constant of `rank` axes or fewer."""
        value = self.value(position)
        if value is None:
            raise CannotImport(f"its input {position} is missing")
        return self.builder.operand(value, self.name(position), rank)

    def pending(self, position: int = 0) -> Node | None:
        """Returns the float node of an input if this call may still change it, otherwise None.

        It may while no QuantizeLinear has read the node's output and no other node reads it.
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
        """Adds a float node that computes the first output, or an intermediate `tensor`."""
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
        """Adds a float node that moves or selects values of the first input.

        The values may be quantized before or after, because rounding to codes is monotonic and
        elementwise, and so commutes with moving, with the maximum and with clamping.
        """
        value = self.real()
        if self.pending() is None:
            self.quantized()
        found = self.emit(operation, [value.node], shape=shape, tensor=tensor)
        return Real(found.node, exact=value.exact)

    def attribute(self, name: str, kind: str, default: Any) -> Any:
        """Returns an attribute, or the default where it is absent.

        Raises:
            CannotImport: the attribute is there twice or has another type.
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
        """Returns an integer attribute that must be 0 or 1, as a boolean."""
        value = self.integer(name, default)
        if value not in (0, 1):
            raise CannotImport(f"its attribute {name!r} is {value}; expected 0 or 1")
        return bool(value)

    def number(self, name: str, default: float) -> float:
        """Returns a floating-point attribute."""
        value = float(self.attribute(name, "FLOAT", default))
        if not math.isfinite(value):
            raise CannotImport(f"its attribute {name!r} is {value}; expected a finite number")
        return value

    def word(self, name: str, default: str) -> str:
        """Returns a string attribute."""
        return self.attribute(name, "STRING", default.encode()).decode("ascii", "replace")

    def integers(self, name: str, default: Sequence[int] | None) -> tuple[int, ...] | None:
        """Returns an attribute that is a list of integers, or the default."""
        found = self.attribute(name, "INTS", default)
        return None if found is None else _all_small(found, name)

    def shape_numbers(self, position: int, name: str) -> tuple[int, ...] | None:
        """Returns integers from a constant input, or from an attribute in older operator sets."""
        value = self.value(position)
        if value is None:
            return self.integers(name, None)
        if not isinstance(value, Integers):
            raise CannotImport(f"its {name} must be constant integers")
        if value.array.ndim > 1:
            raise CannotImport(
                f"its {name} must be a list of integers, but have the shape {value.array.shape}"
            )
        return _all_small(value.array.reshape(-1), name)

    def constant_number(self, position: int, rank: int | None = None) -> float | None:
        """Returns an input that is one constant number, rounded to float32, or None for others.

        Args:
            position: the position of the input.
            rank: the number of axes of the tensor that it broadcasts against; None if there is no
                broadcast.

        Raises:
            CannotImport: the input has more axes, so that the batch would not be the first.
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
        """Returns axes counted from the front.

        Raises:
            CannotImport: an axis does not exist or is named twice.
        """
        found = tuple(self.axis(axis, rank) for axis in axes)
        if len(set(found)) != len(found):
            raise CannotImport(f"its axes {list(axes)[:8]} name an axis twice")
        return found

    def axis(self, axis: int, rank: int | None = None) -> int:
        """Returns an axis counted from the front."""
        rank = self.rank if rank is None else rank
        if not -rank <= axis < rank:
            raise CannotImport(f"its axis {axis} does not exist in a tensor of {rank} axes")
        return axis % rank


def _all_small(numbers: Any, name: str) -> tuple[int, ...]:
    if len(numbers) > MOST_NUMBERS:
        raise CannotImport(f"its {name} hold {len(numbers)} numbers; at most {MOST_NUMBERS}")
    if isinstance(numbers, np.ndarray) and numbers.dtype.kind in "iu":
        return tuple(numbers.clip(*_limits(numbers.dtype)).tolist())
    return tuple(_small(number, name) for number in numbers)


def _limits(dtype: np.dtype) -> tuple[int, int]:
    held = np.iinfo(dtype)
    return max(-LARGEST_NUMBER, int(held.min)), min(LARGEST_NUMBER, int(held.max))


def _small(number: Any, name: str) -> int:
    """Returns a size or position, clamped to a range in which no sum of them overflows.

    Files use larger numbers for "to the end", and the largest of the range means the same.
    """
    if not isinstance(number, int | np.integer):
        raise CannotImport(f"its {name} must be integers, but hold {number!r}")
    return max(-LARGEST_NUMBER, min(LARGEST_NUMBER, int(number)))
