"""Tensors outside the file are read from its own folder, and from nowhere else."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tests.chip.onnx_import.untrusted import TARGET, initializer, refuse, small_model

from photomask.chip.onnx_import import import_qdq


def external(tmp_path: Path, **entries: str) -> Path:
    """Writes a model in a folder of its own whose weight lies outside the file."""
    folder = tmp_path / "model"
    folder.mkdir()
    model = small_model()
    tensor = initializer(model, "DequantizeLinear", 0)
    weight = onnx.numpy_helper.to_array(tensor).tobytes()
    (folder / "weights.bin").write_bytes(b"12345" + weight)
    (tmp_path / "outside.bin").write_bytes(b"12345" + weight)
    tensor.ClearField("int32_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read_from_the_models_own_folder(tmp_path: Path):
    path = external(tmp_path, location="weights.bin", offset="5", length="216")
    program = import_qdq(path, TARGET)
    plain = import_qdq(small_model(), TARGET)
    for name, tensor in plain.tensors.items():
        np.testing.assert_array_equal(program.tensors[name], tensor)


OUTSIDE = {
    "above": {"location": "../outside.bin"},
    "above, on the way": {"location": "model/../../outside.bin"},
    "passwords": {"location": "../../../../../../../../etc/passwd"},
    "absolute": {"location": "/etc/passwd"},
    "of another system": {"location": "..\\outside.bin"},
    "of a drive": {"location": "C:\\outside.bin"},
    "nowhere": {"location": "missing.bin"},
    "no name": {"location": ""},
    "no location": {},
    "a zero byte": {"location": "weights.bin\0"},
    "the folder": {"location": "."},
    "a link": {"location": "link.bin"},
    "a linked folder": {"location": "linked/outside.bin"},
    "behind the end": {"location": "weights.bin", "offset": "6"},
    "far behind the end": {"location": "weights.bin", "offset": "9" * 17},
    "a huge offset": {"location": "weights.bin", "offset": "9" * 5000},
    "before the start": {"location": "weights.bin", "offset": "-5"},
    "no number": {"location": "weights.bin", "offset": "five"},
    "another length": {"location": "weights.bin", "length": "215"},
    "a pipe": {"location": "pipe"},
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_external_data_outside_the_folder_is_never_read(case: str, tmp_path: Path):
    path = external(tmp_path, **OUTSIDE[case])
    (path.parent / "link.bin").symlink_to(tmp_path / "outside.bin")
    (path.parent / "linked").symlink_to(tmp_path)
    os.mkfifo(path.parent / "pipe")
    assert "external data" in refuse(path)


def test_external_data_needs_a_file_beside_it(tmp_path: Path):
    path = external(tmp_path, location="weights.bin", offset="5")
    assert "by its path" in refuse(onnx.load(path, load_external_data=False))
