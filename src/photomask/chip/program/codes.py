"""The inputs of engines: integers by input name, in whichever form the caller has them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from photomask.chip.data import as_tensor
from photomask.chip.program.program import IntegerProgram
from photomask.errors import DataError

Codes = np.ndarray | torch.Tensor
"""The integers of one edge, int64, batch axis first."""
Inputs = Codes | Sequence[Codes] | Mapping[str, Codes]
"""Codes by input name, one for each input in order, or alone for a program with one input.

The batch axis is first.
"""


def codes_by_name(program: IntegerProgram, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Returns integers by the names of a program's inputs, on the device where they are.

    Args:
        program: the program that has the inputs.
        inputs: int64 codes, batch axis first.

    Raises:
        DataError: an input is missing, or does not fit the program.
    """
    if isinstance(inputs, Mapping):
        given = dict(inputs)
    else:
        items = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
        if len(items) != len(program.inputs):
            raise DataError(
                f"the program takes the inputs {list(program.inputs)}, got {len(items)} tensor(s); "
                "pass a mapping of names to tensors"
            )
        given = dict(zip(program.inputs, items, strict=True))
    if set(given) != set(program.inputs):
        raise DataError(f"the program takes the inputs {list(program.inputs)}, got {list(given)}")
    return {name: _codes(program, name, value) for name, value in given.items()}


def arrays_by_name(program: IntegerProgram, inputs: Inputs) -> dict[str, np.ndarray]:
    """Returns what `codes_by_name` returns, as NumPy arrays."""
    codes = codes_by_name(program, inputs)
    return {name: value.cpu().numpy() for name, value in codes.items()}


def _codes(program: IntegerProgram, name: str, value: object) -> torch.Tensor:
    tensor = as_tensor(value)
    if tensor is None:
        raise DataError(
            f"input {name!r} is a {type(value).__name__}, expected a tensor or an array"
        )
    if tensor.dtype != torch.int64:
        raise DataError(
            f"input {name!r} must be int64 codes, got {tensor.dtype}; quantize real inputs with "
            "program.quantize_input"
        )
    return tensor
