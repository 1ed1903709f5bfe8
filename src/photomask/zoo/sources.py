"""Models and images by what a user types: a name of the zoo, a file, or `file.py:function`."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from photomask.arrays import plain_array, read_array, read_arrays
from photomask.documents import is_folder
from photomask.errors import DataError, DocumentError, UsageError
from photomask.user_files import evaluate, kind_of
from photomask.zoo import catalogue, fashion_mnist, photographs
from photomask.zoo.picture_folder import read_picture_folder

R = TypeVar("R")

LABELS = ("labels", "label")
"""The keys that classes may have in a `.npz` file."""

_IMAGES: dict[str, Callable[[], Tensor]] = {
    "fashion_mnist": lambda: fashion_mnist.calibration_set()[0],
    "photographs": lambda: photographs.photograph_crops(64),
}


def load_model(source: str) -> nn.Module:
    """Loads a model of the zoo or of the user.

    Args:
        source: a name of the zoo (`resnet20`), or `path/to/file.py:attribute`, where the attribute
            is an `nn.Module`, or a function or class that makes one without arguments. Modules
            beside the file can be imported by it.

    Returns:
        The model in evaluation mode.

    Raises:
        UsageError: no such name, file or attribute; or running it failed, with the original error
            as `__cause__`; or what came out is no `nn.Module`.
    """
    if ":" not in source:
        if source not in catalogue.names():
            raise UsageError(
                f"no model {source!r}: give a name of the zoo ({', '.join(catalogue.names())}) "
                "or path/to/file.py:function"
            )
        return catalogue.load(source)
    model = evaluate(source, kept=nn.Module)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{source} gave {kind_of(model)}, not a torch.nn.Module")
    return model.eval()


def load_images(source: str) -> Tensor:
    """Loads input images for calibration or test, without labels; see `load_labelled`."""
    return load_labelled(source)[0]


def load_labelled(source: str) -> tuple[Tensor, Tensor | None]:
    """Loads input images and, where the source holds them, their classes.

    Args:
        source: one of these:

            - `fashion_mnist` (the calibration slice) or `photographs` (64 crops, 224x224);
            - a `.npy` file of a float array; `NAME.labels.npy` beside `NAME.npy` holds its classes;
            - a `.npz` file with one float array, and its classes under the key `labels` or
              `label`;
            - a folder of pictures (see `photomask.zoo.picture_folder`), whose sub-folders, if it
              has any, are the classes;
            - `path/to/file.py:attribute`, where the attribute is an array, a tensor or an iterable
              of batches, or a function without arguments that returns one.

    Returns:
        Images as the model takes them, float32 [count, ...], on the CPU, and classes, int64
        [count], or None.

    Raises:
        UsageError: no such name, file or attribute, or running it failed.
        DataError: no images, no float values, NaN or infinity, another number of labels, or a
            damaged file.
    """
    if source in _IMAGES:
        return _IMAGES[source](), None
    labels: Any = None
    if source.endswith(".npy"):
        values: Any = _read(Path(source), read_array)
        beside = Path(source.removesuffix(".npy") + ".labels.npy")
        if os.path.lexists(beside):
            labels = _read(beside, read_array)
    elif source.endswith(".npz"):
        values, labels = _of_archive(source)
    elif ":" in source:
        values = evaluate(source)
    elif is_folder(source):
        values, labels = read_picture_folder(Path(source))
    else:
        raise UsageError(
            f"no images {source!r}: give one of {', '.join(sorted(_IMAGES))}, a .npy or .npz file, "
            "a folder of pictures, or path/to/file.py:function"
        )
    images = _as_images(values, source)
    return images, None if labels is None else _as_labels(labels, len(images), source)


def load_labels(path: Path, count: int) -> Tensor:
    """Loads classes from a `.npy` file.

    Args:
        path: of the file.
        count: of the samples that they belong to.

    Returns:
        int64 [count, ...].

    Raises:
        UsageError: there is no such file.
        DataError: they are no integers, there is another number of them, or the file is damaged.
    """
    return _as_labels(_read(path, read_array), count, str(path))


def _of_archive(source: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the one array of a `.npz` file that is not its labels, and these."""
    arrays = _read(Path(source), read_arrays)
    keys = [key for key in LABELS if key in arrays]
    labels = arrays.pop(keys[0]) if keys else None
    if len(arrays) != 1:
        raise DataError(
            f"{source} holds the arrays {', '.join(sorted(arrays)) or 'none'}; expected one array "
            f"of inputs, and the classes under {' or '.join(LABELS)} if there are any"
        )
    return arrays.popitem()[1], labels


def _as_labels(labels: Any, count: int, source: str) -> Tensor:
    classes = _as_tensor(labels, f"{source}, labels")
    if classes.dtype.is_floating_point or classes.is_complex() or classes.dtype == torch.bool:
        raise DataError(f"the labels of {source} are {classes.dtype}, expected integers")
    if not classes.ndim or len(classes) != count:
        raise DataError(
            f"the labels of {source} have shape {list(classes.shape)}, expected [{count}] or "
            f"[{count}, ...]: there are {count} samples"
        )
    return classes.to(torch.int64)


def _as_tensor(values: np.ndarray | Tensor, source: str) -> Tensor:
    """Returns numbers as a tensor on the CPU."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        return torch.from_numpy(plain_array(values))
    except DataError as error:
        raise DataError(f"{source}: {error}") from error


def _read(path: Path, reader: Callable[[Path], R]) -> R:
    if not os.path.lexists(path):
        raise UsageError(f"no file {path}")
    try:
        return reader(path)
    except DocumentError as error:
        raise DataError(str(error)) from error


def _as_images(values: Any, source: str) -> Tensor:
    """Turns an array, a tensor or an iterable of batches into one checked float32 tensor."""
    if isinstance(values, np.ndarray | Tensor):
        images = _as_tensor(values, source)
    elif isinstance(values, Iterable) and not isinstance(values, str | bytes | dict):
        batches = [_as_images(batch, source) for batch in values]
        if not batches:
            raise DataError(f"{source} holds no images")
        if len({batch.shape[1:] for batch in batches}) > 1:
            raise DataError(f"{source}: batches hold images of different shapes")
        return torch.cat(batches)
    else:
        raise DataError(
            f"{source} gave {kind_of(values)}, not an array, a tensor or batches of them"
        )
    if images.ndim < 2 or images.numel() == 0:
        raise DataError(f"{source} holds no images: shape {list(images.shape)}, expected [N, ...]")
    if not images.is_floating_point():
        raise DataError(
            f"{source} holds {images.dtype}, expected floats normalised as the model takes them"
        )
    if not torch.isfinite(images).all():
        raise DataError(f"{source} holds NaN or infinity")
    return images.to(torch.float32)
