"""The folder that Deeploy's tests read: a network and one sample of what goes in and comes out."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from photomask.chip.forms.deeploy.model import deeploy_model
from photomask.chip.forms.onnx_builder import save_onnx
from photomask.chip.program import IntegerProgram
from photomask.documents import written_whole

NETWORK_FILE = "network.onnx"
INPUTS_FILE = "inputs.npz"
OUTPUTS_FILE = "outputs.npz"


def export_deeploy(
    program: IntegerProgram, folder: str | Path, codes: Mapping[str, np.ndarray]
) -> None:
    """Writes `network.onnx`, `inputs.npz` and `outputs.npz`, as Deeploy's test runner wants them.

    The folder appears whole or not at all, and replaces an earlier one.

    Args:
        program: made for a target like `deeploy`.
        folder: where to.
        codes: int64 codes by input name, batch first; the first sample is taken.

    Raises:
        ExportError: operators or formats that Deeploy has no form for, all of them; the folder
            holds something else, or the disk refused a file.
        DataError: the codes do not fit the program.
        MissingDependencyError: the package onnx is not installed.
    """
    model = deeploy_model(program, {name: values[:1] for name, values in codes.items()})
    with written_whole(Path(folder), "Deeploy folder") as staging:
        save_onnx(model.model, staging / NETWORK_FILE)
        for name, arrays in ((INPUTS_FILE, model.inputs), (OUTPUTS_FILE, model.outputs)):
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **arrays)
            (staging / name).write_bytes(buffer.getvalue())
