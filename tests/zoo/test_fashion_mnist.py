import gzip
import struct

import numpy as np
import pytest
import torch

from photomask.errors import DataError, UsageError
from photomask.zoo import fashion_mnist


def _write_idx(path, values, dtype=8):
    header = struct.pack(f">HBB{values.ndim}I", 0, dtype, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def test_test_set_is_whole_balanced_and_normalised():
    images, labels = fashion_mnist.test_set()
    assert images.shape == (10_000, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [1000] * len(fashion_mnist.CLASSES)
    assert images.min().item() == pytest.approx(-0.8102, abs=1e-4)
    assert images.max().item() == pytest.approx(2.0227, abs=1e-4)


def test_calibration_set_is_deterministic_and_nested():
    all_images, all_labels = fashion_mnist.calibration_set()
    images, labels = fashion_mnist.calibration_set(64)
    assert all_images.shape == (1024, 1, 28, 28)
    assert torch.equal(images, all_images[:64])
    assert torch.equal(labels, all_labels[:64])
    assert set(all_labels.tolist()) == set(range(10))
    assert abs(all_images.mean().item()) < 0.05


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_calibration_set_refuses_impossible_counts(count):
    with pytest.raises(UsageError, match="1024"):
        fashion_mnist.calibration_set(count)


def test_training_set_reads_the_original_files(tmp_path):
    pixels = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    _write_idx(tmp_path / "train-images-idx3-ubyte.gz", pixels)
    _write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([7, 0, 9], np.uint8))
    images, labels = fashion_mnist.training_set(tmp_path)
    assert torch.equal(images, fashion_mnist.normalise(pixels))
    assert labels.tolist() == [7, 0, 9]


def test_a_missing_training_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="train-images-idx3-ubyte"):
        fashion_mnist.training_set(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "not gzip", "other dtype", "short header"])
def test_a_damaged_idx_file_is_refused(tmp_path, damage):
    path = tmp_path / "x.gz"
    _write_idx(path, np.zeros((2, 28, 28), np.uint8), dtype=13 if damage == "other dtype" else 8)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:20])
    elif damage == "not gzip":
        path.write_bytes(b"idx")
    elif damage == "short header":
        path.write_bytes(gzip.compress(b"\0\0\x08\x03\0"))
    with pytest.raises(DataError, match=r"x\.gz"):
        fashion_mnist.read_idx(path)


def test_normalise_refuses_floats():
    with pytest.raises(DataError, match="uint8"):
        fashion_mnist.normalise(np.zeros((1, 28, 28), np.float32))


PIXELS = np.zeros((2, 28, 28), np.uint8)


@pytest.mark.parametrize(
    "arrays",
    [
        {"pixels": PIXELS},
        {"labels": np.zeros(2, np.uint8)},
        {"pixels": PIXELS, "labels": np.zeros(3, np.uint8)},
        {"pixels": PIXELS, "labels": np.zeros(2)},
        {"pixels": PIXELS, "labels": np.full(2, 10, np.uint8)},
        {"pixels": PIXELS[:0], "labels": np.zeros(0, np.uint8)},
        None,
    ],
)
def test_damaged_shipped_pictures_are_refused(tmp_path, monkeypatch, arrays):
    path = tmp_path / "fashion_mnist_test.npz"
    if arrays is None:
        path.write_bytes(b"PK")
    else:
        np.savez(path, **arrays)
    monkeypatch.setattr(fashion_mnist, "_FOLDER", tmp_path)
    with pytest.raises(DataError, match="reinstall photomask"):
        fashion_mnist.test_set()
