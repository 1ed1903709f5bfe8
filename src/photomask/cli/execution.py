"""Runs a program on arrays."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from photomask.chip import IntegerProgram
from photomask.chip.data import LABEL_KEYS, InputForm, read_batch
from photomask.chip.engines import CEngine, OnnxEngine, TorchEngine
from photomask.chip.program import NumpyEngine
from photomask.chip.verification.engines import quantized
from photomask.chip.verification.inputs import checked_inputs
from photomask.cli.console import progress
from photomask.cli.options import EngineName
from photomask.errors import DataError
from photomask.zoo import Samples

BATCH = 32
ARRAY_ENGINES = {"numpy": NumpyEngine, "c": CEngine, "onnx": OnnxEngine}
"""Engines that take and give NumPy arrays."""


def run_program(
    program: IntegerProgram,
    arrays: Sequence[np.ndarray] | Mapping[str, np.ndarray],
    engine: EngineName,
    *,
    real: bool,
) -> dict[str, np.ndarray]:
    """Returns the outputs by name.

    Args:
        program: what to run.
        arrays: one per input, in order or by the inputs' names; floats are quantized, integers are
            codes.
        engine: which engine runs it.
        real: dequantize the outputs.

    Raises:
        DataError: an array does not fit its input.
        EngineError: the engine's compiler or runtime failed.
        MissingDependencyError: the engine's package is not installed.
    """
    codes = _codes_of(program, arrays)
    compute = _computer(program, engine)
    found: dict[str, list[np.ndarray]] = {name: [] for name in program.outputs}
    count = len(codes[program.inputs[0]])
    for start in progress()(range(0, count, BATCH), f"running, {engine} engine"):
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


def golden_codes(program: IntegerProgram, samples: Samples) -> dict[str, torch.Tensor]:
    """Returns the codes of real inputs, by name.

    Raises:
        DataError: an input is missing, or does not fit the program.
    """
    return quantized(program, checked_inputs(program, samples).inputs)


def _codes_of(
    program: IntegerProgram, arrays: Sequence[np.ndarray] | Mapping[str, np.ndarray]
) -> dict[str, torch.Tensor]:
    """Returns the codes of every input."""
    given = dict(arrays) if isinstance(arrays, Mapping) else list(arrays)
    if isinstance(given, dict) and len(program.inputs) == 1:
        inputs = [name for name in given if name not in LABEL_KEYS]
        given = [given[inputs[0]]] if len(inputs) == 1 else given
    if isinstance(given, list) and len(given) != len(program.inputs):
        raise DataError(f"the program takes {list(program.inputs)}, got {len(given)} array(s)")
    edges = [program.edges[name] for name in program.inputs]
    forms = [InputForm(edge.name, edge.shape[1:], integers=None) for edge in edges]
    batch = read_batch(forms, given, what="data")
    return {
        form.name: program.quantize_input(x, form.name) if x.is_floating_point() else x.long()
        for form, x in zip(forms, batch.inputs, strict=True)
    }
