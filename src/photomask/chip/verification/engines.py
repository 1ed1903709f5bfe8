"""The torch engine beside the NumPy oracle."""

import math

import numpy as np
from torch import Tensor

from photomask.chip.engines import TorchEngine
from photomask.chip.program import IntegerProgram, NumpyEngine
from photomask.chip.verification.documents import EngineReport
from photomask.report import Progress

ORACLE_BYTES = 1 << 28
"""Memory for the oracle's edges, which it keeps until the end of a batch."""


def compare_engines(
    program: IntegerProgram, engine: TorchEngine, codes: dict[str, Tensor], progress: Progress
) -> EngineReport:
    """Runs both engines on the same codes and compares every edge.

    Args:
        program: what both run.
        engine: the torch engine.
        codes: int64 by input name.
        progress: shows how far it is.
    """
    elements = sum(math.prod(edge.shape) for edge in program.edges.values())
    size = max(1, ORACLE_BYTES // (8 * elements))
    count = len(codes[program.inputs[0]])
    oracle = NumpyEngine(program)
    integers = mismatches = 0
    first: str | None = None
    for start in progress(range(0, count, size), "comparing engines"):
        batch = {name: value[start : start + size] for name, value in codes.items()}
        expected = oracle.edges({name: value.numpy() for name, value in batch.items()})
        for (name, found), (_, right) in zip(engine.edges(batch), expected, strict=True):
            array = found.cpu().numpy()
            different = _differences(array, right)
            integers += right.size
            mismatches += int(different.sum())
            if first is None and different.any():
                first = _describe(program, name, array, right, start)
    return EngineReport(
        samples=count,
        edges=len(program.edges),
        integers=integers,
        mismatches=mismatches,
        first_mismatch=first,
    )


def _differences(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Returns where the arrays differ, which is everywhere if their shapes differ."""
    if found.shape != expected.shape:
        return np.ones(expected.shape, dtype=bool)
    return found != expected


def _describe(
    program: IntegerProgram, edge: str, found: np.ndarray, expected: np.ndarray, start: int
) -> str:
    step = program.links.makers.get(edge)
    what = f"step {step.name!r} ({step.operator.kind})" if step else "an input"
    if found.shape != expected.shape:
        return f"edge {edge!r}, {what}: shape {found.shape}, the oracle has {expected.shape}"
    index = tuple(int(i) for i in np.argwhere(found != expected)[0])
    return (
        f"edge {edge!r}, {what}, sample {index[0] + start}, element {index[1:]}: torch "
        f"{found[index]}, NumPy {expected[index]}"
    )


def quantized(program: IntegerProgram, inputs: list[Tensor]) -> dict[str, Tensor]:
    """Returns the program's integer inputs for real ones, by name."""
    return {
        name: program.quantize_input(x, name)
        for name, x in zip(program.inputs, inputs, strict=True)
    }
