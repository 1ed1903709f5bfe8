import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from photomask.chip import IntegerProgram, NumpyEngine, TorchEngine

INTERPRETATION = {"scale", "relative_error"}
"""Fields that say what integers mean; no engine reads them."""


def floats_in(value: Any, field: str = "") -> set[str]:
    """Returns the names of the JSON fields that hold floating-point numbers."""
    if isinstance(value, dict):
        return set().union(*(floats_in(item, name) for name, item in value.items()), set())
    if isinstance(value, list):
        return set().union(*(floats_in(item, field) for item in value), set())
    return {field} if isinstance(value, float) else set()


def test_a_program_holds_no_float_tensor(small_program: IntegerProgram, tmp_path: Path):
    assert {tensor.dtype for tensor in small_program.tensors.values()} == {np.dtype(np.int64)}
    small_program.save(tmp_path / "program")
    saved = safetensors.numpy.load_file(tmp_path / "program" / "program.safetensors")
    assert saved
    assert all(tensor.dtype.kind in "iu" for tensor in saved.values())


def test_floats_of_a_saved_program_are_interpretation_only(
    small_program: IntegerProgram, tmp_path: Path
):
    small_program.save(tmp_path / "program")
    document = json.loads((tmp_path / "program" / "program.json").read_text())
    assert floats_in(document) == INTERPRETATION


def test_engines_never_read_the_interpretation(
    small_program: IntegerProgram, small_images: torch.Tensor
):
    """Programs that differ in every scale compute the same integers."""
    edges = [
        edge.model_copy(update={"scale": tuple(17.0 * s for s in edge.scale)})
        for edge in small_program.edges.values()
    ]
    other = IntegerProgram(
        target=small_program.target,
        inputs=small_program.inputs,
        outputs=small_program.outputs,
        edges=edges,
        steps=[step.model_copy(update={"relative_error": 0.5}) for step in small_program.steps],
        tensors=small_program.tensors,
        formats=small_program.formats,
        provenance={},
    )
    codes = {small_program.inputs[0]: small_program.quantize_input(small_images)}
    for name, expected in TorchEngine(small_program).edges(codes):
        found = dict(TorchEngine(other).edges(codes))[name]
        assert torch.equal(found, expected)
    arrays = {name: value.numpy() for name, value in codes.items()}
    for name, expected in NumpyEngine(small_program).run(arrays).items():
        assert np.array_equal(NumpyEngine(other).run(arrays)[name], expected)
