"""Fashion-MNIST: 28x28 grey pictures of clothes in ten classes.

The 10,000 test images and 1,024 training images for calibration are shipped in `data/`.
`training_set` reads all training images from the original idx files. Images are returned as
float32, `(pixel / 255 - MEAN) / STANDARD_DEVIATION` with pixel in 0..255. The black background is
therefore -0.8102, and white is 2.0227.

Source: Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747. Copyright 2017 Zalando SE, MIT licence. The
text of the licence is shipped beside the data.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from photomask.arrays import read_arrays
from photomask.documents import opened
from photomask.errors import DataError, DocumentError, UsageError

TRAINING_IMAGES = "train-images-idx3-ubyte.gz"
"""The name of the original file with the training pixels."""

MEAN = 0.2860
"""The mean of the training pixels, in units of full scale (255)."""

STANDARD_DEVIATION = 0.3530
"""The standard deviation of the training pixels, in units of full scale (255)."""

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""The name of each label."""

CALIBRATION_COUNT = 1024
"""The number of training images in the shipped calibration slice."""

_FOLDER = Path(__file__).parent / "data"
_PIXEL_DTYPE = 0x08
_IDX_BYTES = 256 << 20
"""The largest idx file that is read, packed and unpacked, in bytes. 60,000 pictures of 28x28 pixels
have 47 MB."""


def test_set() -> tuple[Tensor, Tensor]:
    """Reads the whole shipped test set, in its original order.

    Returns:
        The normalised images, float32 [10000, 1, 28, 28], and the labels 0..9, int64 [10000].

    Raises:
        DataError: the shipped file is missing or damaged.
    """
    return _read_shipped("fashion_mnist_test.npz")


def calibration_set(count: int = CALIBRATION_COUNT) -> tuple[Tensor, Tensor]:
    """Reads the first `count` of 1,024 training images, which were chosen with a fixed seed.

    Args:
        count: the number of images, 1..1024. A smaller set is a prefix of a larger one.

    Returns:
        The normalised images, float32 [count, 1, 28, 28], and the labels 0..9, int64 [count].

    Raises:
        UsageError: `count` is outside 1..1024.
        DataError: the shipped file is missing or damaged.
    """
    if not 1 <= count <= CALIBRATION_COUNT:
        raise UsageError(
            f"calibration_set(count={count}): the shipped slice holds {CALIBRATION_COUNT} images; "
            f"ask for 1 to {CALIBRATION_COUNT}, or read more with training_set(folder)"
        )
    images, labels = _read_shipped("fashion_mnist_calibration.npz")
    return images[:count], labels[:count]


def training_set(folder: str | Path) -> tuple[Tensor, Tensor]:
    """Reads the 60,000 training images from the original files.

    Args:
        folder: the folder with `train-images-idx3-ubyte.gz` and `train-labels-idx1-ubyte.gz`. The
            Debian package `dataset-fashion-mnist` puts them into
            `/usr/share/datasets/fashion-mnist`.

    Returns:
        The normalised images, float32 [60000, 1, 28, 28], and the labels 0..9, int64 [60000].

    Raises:
        UsageError: a file is missing.
        DataError: a file is damaged, or it does not hold pictures of 28x28 bytes.
    """
    pixels = read_idx(Path(folder) / TRAINING_IMAGES)
    labels = read_idx(Path(folder) / "train-labels-idx1-ubyte.gz")
    return normalise(pixels), torch.from_numpy(labels.astype(np.int64))


def normalise(pixels: np.ndarray) -> Tensor:
    """Returns normalised images, the input of a network, from grey values.

    Args:
        pixels: the grey values, uint8 [N, 28, 28]; 0 is black and 255 is white.

    Returns:
        The images, float32 [N, 1, 28, 28].

    Raises:
        DataError: the pixels have another dtype or shape.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1:] != (28, 28):
        raise DataError(
            f"Fashion-MNIST pixels must be uint8 [N, 28, 28], got {pixels.dtype} "
            f"{list(pixels.shape)}"
        )
    scaled = torch.from_numpy(pixels).unsqueeze(1).to(torch.float32) / 255
    return (scaled - MEAN) / STANDARD_DEVIATION


def read_idx(path: str | Path) -> np.ndarray:
    """Reads a gzipped idx file of unsigned bytes, the format of MNIST.

    Args:
        path: the path of the `.gz` file.

    Returns:
        An array of uint8 with the shape that the header of the file states.

    Raises:
        UsageError: the file does not exist.
        DataError: the file is not a gzipped idx file of bytes, or it is truncated or too large.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise UsageError(
            f"there is no file {path}; expected an idx file of Fashion-MNIST, which the Debian "
            "package dataset-fashion-mnist installs"
        )
    try:
        with opened(path, _IDX_BYTES) as file, gzip.GzipFile(fileobj=file) as content:
            zeros, dtype, dimensions = struct.unpack(">HBB", content.read(4))
            shape = struct.unpack(f">{dimensions}I", content.read(4 * dimensions))
            if zeros != 0 or dtype != _PIXEL_DTYPE:
                raise DataError(f"{path} is not an idx file of unsigned bytes")
            if (size := math.prod(shape)) > _IDX_BYTES:
                raise DataError(
                    f"{path} has {size:,} bytes unpacked, but at most {_IDX_BYTES:,} are read"
                )
            pixels = content.read(size + 1)
            if len(pixels) != size:
                raise DataError(
                    f"{path} is truncated or too long: the shape {list(shape)} in its header "
                    f"needs {size} bytes"
                )
            return np.frombuffer(bytearray(pixels), np.uint8).reshape(shape)
    except (DocumentError, OSError, EOFError, struct.error, ValueError, zlib.error) as error:
        raise DataError(f"{path} is truncated, or it is not a gzipped idx file: {error}") from error


def _read_shipped(name: str) -> tuple[Tensor, Tensor]:
    path = _FOLDER / name
    if not path.is_file():
        raise DataError(
            f"{path} is missing: reinstall photomask, or write it again with "
            "scripts/make_fashion_mnist.py"
        )
    try:
        arrays = read_arrays(path)
    except DocumentError as error:
        raise DataError(f"{error}: reinstall photomask") from error
    if not {"pixels", "labels"} <= set(arrays):
        raise DataError(
            f"{path} holds {sorted(arrays)}, not pixels and labels: reinstall photomask"
        )
    pixels, labels = arrays["pixels"], arrays["labels"]
    images = normalise(pixels)
    if labels.dtype != np.uint8 or labels.shape != pixels.shape[:1] or not labels.size:
        raise DataError(
            f"{path} holds labels {labels.dtype} {list(labels.shape)} for {len(pixels)} pictures, "
            "but one uint8 for each picture was expected: reinstall photomask"
        )
    if labels.max() >= len(CLASSES):
        raise DataError(
            f"{path} holds the label {labels.max()}, but the last class is {len(CLASSES) - 1}: "
            "reinstall photomask"
        )
    return images, torch.from_numpy(labels.astype(np.int64))
