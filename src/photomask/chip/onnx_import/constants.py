"""Imports constants of an ONNX file, and arithmetic on shapes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from photomask.chip.onnx_import.call import Call
from photomask.chip.onnx_import.lookups import cast_codes
from photomask.chip.onnx_import.values import CannotImport, Codes, Floats, Integers, Real, Value

MOST_SHAPE_NUMBERS = 1 << 12
"""The most numbers of a constant that is computed from shapes."""


def shape_of(call: Call) -> Value:
    """Returns the shape of one sample as a constant, with a batch of 1."""
    value = call.value(0)
    shape = call.builder.shape(value) if isinstance(value, Real) else None
    if shape is None:
        raise CannotImport("its input must be an activation")
    start, end = call.integer("start", 0), call.integer("end", len(shape))
    return Integers(np.array(shape[start:end], dtype=np.int64), "INT64")


def cast(call: Call) -> Value:
    """Imports a cast of constant integers, or of codes that are indices into a table."""
    value = call.value(0)
    if isinstance(value, Codes):
        return cast_codes(call, value)
    if not isinstance(value, Integers) or call.integer("to", 0) not in (6, 7):
        raise CannotImport("only constant integers and codes can be cast, to int32 or int64")
    limits = np.iinfo(np.int32 if call.integer("to", 0) == 6 else np.int64)
    for number in (value.array.min(), value.array.max()) if value.array.size else ():
        if not limits.min <= int(number) <= limits.max:
            raise CannotImport(f"it casts the constant {number}, which {limits.dtype} cannot hold")
    return Integers(value.array.astype(np.int64), "INT64")


def constant(call: Call) -> Value:
    """Returns the constant that a node holds in an attribute."""
    tensor = call.attribute("value", "TENSOR", None)
    if tensor is not None:
        return value_of(*call.reader.read(tensor))
    if any(attribute.name == "value_float" for attribute in call.node.attribute):
        return Floats(np.array(call.attribute("value_float", "FLOAT", 0.0), dtype=np.float32))
    numbers = call.integers("value_ints", None)
    if numbers is None and any(a.name == "value_int" for a in call.node.attribute):
        return Integers(np.array(call.integer("value_int", 0)), "INT64")
    if numbers is None:
        raise CannotImport("it must hold a tensor, a number or a list of integers")
    return Integers(np.array(numbers, dtype=np.int64), "INT64")


def join_constants(call: Call) -> Value:
    """Returns the concatenation of constant integers, which describe shapes."""
    arrays = [value.array for value in call.values if isinstance(value, Integers)]
    if sum(array.size for array in arrays) > MOST_SHAPE_NUMBERS:
        raise CannotImport(f"it concatenates more than {MOST_SHAPE_NUMBERS} constant numbers")
    try:
        return Integers(np.concatenate(arrays, axis=call.integer("axis", 0)), "INT64")
    except ValueError as error:
        raise CannotImport(f"its constants cannot be concatenated: {error}") from error


def value_of(array: np.ndarray, kind: str) -> Value:
    """Returns a constant tensor of the file as a value."""
    if kind in ("FLOAT", "FLOAT16", "DOUBLE"):
        return Floats(array)
    return Integers(array, kind)


def apply_to_constant(
    call: Call, function: Callable[[np.ndarray, Any], np.ndarray], argument: Any
) -> Value:
    """Returns a NumPy function of a constant; the function must not add elements."""
    value = call.value(0)
    if not isinstance(value, Floats | Integers):
        raise CannotImport(f"its input {call.name(0)!r} must be a constant")
    try:
        array = function(value.array, argument)
    except (ValueError, IndexError, TypeError) as error:
        raise CannotImport(f"it cannot be applied to its constant: {error}") from error
    return Floats(array) if isinstance(value, Floats) else Integers(array, value.kind)
