"""Photomask as the benchmarks use it: through its public names alone."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    NumpyEngine,
    TorchEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)

Network = Callable[[Tensor], Tensor]
"""From float images [batch, ...] to float scores [batch, classes]."""


class RedGateError(AssertionError):
    """The engines differ; nothing about them is worth timing."""


def make_program(
    model: nn.Module, recipe: str, images: Tensor, *, target: str = "asic", batch: int = 32
) -> IntegerProgram:
    """Returns the integer program of a model, calibrated on all `images`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.export, about its own code
        prepared = prepare(model, load_recipe(recipe), images[:1])
    calibrate(prepared, images.split(batch))
    return convert(prepared, load_target(target))


def as_network(program: IntegerProgram, device: str = "cpu") -> Network:
    """Returns a program as a function of float images; all between is integers."""
    engine = TorchEngine(program, device)
    output = program.edges[program.outputs[0]]

    def run(images: Tensor) -> Tensor:
        codes = engine.run({program.inputs[0]: program.quantize_input(images)})
        return output.dequantize(codes[output.name]).cpu()

    return run


def count_mismatches(
    program: IntegerProgram, images: Tensor, *, device: str = "cpu", batch: int = 4
) -> tuple[int, int]:
    """Compares the torch engine with the NumPy oracle on every edge.

    Returns:
        How many integers were compared, and how many of them differ.
    """
    fast, oracle = TorchEngine(program, device), NumpyEngine(program)
    integers = mismatches = 0
    for part in images.split(batch):
        codes = program.quantize_input(part)
        name = program.inputs[0]
        pairs = zip(fast.edges({name: codes}), oracle.edges({name: codes.numpy()}), strict=True)
        for (edge, found), (expected_edge, expected) in pairs:
            assert edge == expected_edge
            integers += expected.size
            mismatches += int(np.count_nonzero(found.cpu().numpy() != expected))
    return integers, mismatches


def require_exact(program: IntegerProgram, images: Tensor, *, device: str = "cpu") -> int:
    """Returns how many integers the engines agree on.

    Raises:
        RedGateError: they differ somewhere.
    """
    integers, mismatches = count_mismatches(program, images, device=device)
    if mismatches:
        raise RedGateError(f"{mismatches} of {integers} integers differ from the oracle")
    return integers


def float_network(model: nn.Module) -> Network:
    """Returns a float model as a function of images."""

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(images)

    return run
