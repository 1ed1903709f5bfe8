"""Runs a program on arrays."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from photomask.chip import IntegerProgram
from photomask.chip.engines import CEngine, OnnxEngine, TorchEngine
from photomask.chip.program import NumpyEngine
from photomask.cli.console import show_progress
from photomask.errors import DataError

BATCH = 32
ARRAY_ENGINES = {"numpy": NumpyEngine, "c": CEngine, "onnx": OnnxEngine}
"""Engines that take and give NumPy arrays."""


def run_program(
    program: IntegerProgram,
    arrays: Sequence[np.ndarray],
    engine: Literal["torch", "numpy", "c", "onnx"],
    *,
    real: bool,
) -> dict[str, np.ndarray]:
    """Returns the outputs by name.

    Args:
        program: what to run.
        arrays: one per input; floats are quantized, integers are codes.
        engine: which engine runs it.
        real: dequantize the outputs.

    Raises:
        DataError: an array does not fit its input.
        EngineError: the engine's compiler or runtime failed.
        MissingDependencyError: the engine's package is not installed.
    """
    if len(arrays) != len(program.inputs):
        raise DataError(f"the program takes {list(program.inputs)}, got {len(arrays)} array(s)")
    codes = {
        name: _codes(program, name, array)
        for name, array in zip(program.inputs, arrays, strict=True)
    }
    compute = _computer(program, engine)
    found: dict[str, list[np.ndarray]] = {name: [] for name in program.outputs}
    count = max(len(values) for values in codes.values())
    for start in show_progress(range(0, count, BATCH), f"running, {engine} engine"):
        outputs = compute({name: values[start : start + BATCH] for name, values in codes.items()})
        for name, value in outputs.items():
            found[name].append(value)
    whole = {name: np.concatenate(parts) for name, parts in found.items()}
    if not real:
        return whole
    return {
        name: program.edges[name].dequantize(torch.from_numpy(value)).numpy()
        for name, value in whole.items()
    }


def _computer(
    program: IntegerProgram, engine: str
) -> Callable[[Mapping[str, torch.Tensor]], dict[str, np.ndarray]]:
    """Returns what runs a batch on an engine."""
    if engine == "torch":
        fast = TorchEngine(program)
        return lambda batch: {name: value.numpy() for name, value in fast.run(batch).items()}
    other = ARRAY_ENGINES[engine](program)
    return lambda batch: other.run({name: value.numpy() for name, value in batch.items()})


def _codes(program: IntegerProgram, name: str, array: np.ndarray) -> torch.Tensor:
    if array.ndim == 0 or not len(array):
        raise DataError(f"input {name!r} holds no samples")
    if array.dtype.kind == "f":
        return program.quantize_input(torch.from_numpy(array), name)
    return torch.from_numpy(array.astype(np.int64))
